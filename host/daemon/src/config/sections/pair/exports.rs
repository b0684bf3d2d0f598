//! Names that a pair's copy is exported under beside the volume's own: no other export may have one of them

use std::collections::BTreeMap;

use super::super::super::problem::ConfigError;
use super::super::super::read::Field;
use super::super::super::{Pair, Volume};

/// What ends the name of an export of the copy: while it is tested, and while it is opened as it arrives.
pub(crate) const TESTED: &str = ".test";
pub(crate) const FOLLOWED: &str = ".copy";

/// Names of exports, each with what has it.
#[derive(Debug)]
pub(super) struct Exports {
    own: BTreeMap<String, String>,
    of_copies: BTreeMap<String, String>,
}

impl Exports {
    pub(super) fn new(volumes: &[Volume]) -> Self {
        let own = volumes.iter().map(|volume| (volume.name.clone(), format!("[[volume]] {}", volume.name)));
        Self { own: own.collect(), of_copies: BTreeMap::new() }
    }

    /// `name`: the field with the pair's name, which is what goes wrong here.
    pub(super) fn add(&mut self, name: &Field<'_, '_>, pair: &Pair) -> Result<(), ConfigError> {
        let export = pair.volume_name();
        if let Some(other) = self.of_copies.get(export) {
            return Err(is_taken(name, export, &format!("the copy of pair {other}"), &format!("pair {}", pair.name)));
        }
        for end in [TESTED, FOLLOWED] {
            let of_copy = format!("{export}{end}");
            if let Some(other) = self.own.get(&of_copy) {
                return Err(is_taken(name, &of_copy, "this pair's copy", other));
            }
            self.of_copies.insert(of_copy, pair.name.clone());
        }
        self.own.insert(export.to_owned(), format!("pair {}", pair.name));
        Ok(())
    }
}

fn is_taken(name: &Field<'_, '_>, export: &str, copy: &str, other: &str) -> ConfigError {
    let wrong = format!("{copy} is exported as {export} while it is tested or opened, and {other} has that name");
    let allowed = format!("volumes and pairs whose exports are not another's with {TESTED} or {FOLLOWED} behind it");
    let fix = "choose another name for one of the two; volume = \"NAME\" in a secondary's [[pair]] names its export";
    name.wrong(&wrong, &allowed, fix)
}
