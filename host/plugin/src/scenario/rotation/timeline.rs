//! What may happen in a rotation policy's story: the entries of `timeline`, as files write them.

use serde::Deserialize;
use serde::de::Error as _;

use super::super::journalled::JournalledOf;
use super::super::units::{Size, Span, Step};
use super::{Crash, Link};
use crate::rotation::{RotationCall, RotationPolicy};
use crate::wit::types::Extension;

#[derive(Debug, Clone)]
pub(super) enum Entry {
    Advance {
        by: u64,
        bytes: u64,
        blocks: u64,
    },
    /// Time passes until so long before the policy is to be woken.
    BeforeWake(u64),
    Usage {
        bytes: u64,
        blocks: u64,
        records: u64,
    },
    Request(String),
    Suspect(Option<u64>),
    Link(Link),
    /// The escrow site answers, or does not: without its receipt a key has no place.
    Escrow(Link),
    Clock(i64),
    Crash(Crash),
    Restart,
    /// These happenings so many times.
    Repeat {
        times: u64,
        of: Vec<Self>,
    },
    Ext(Extension),
    /// The journal holds this text as the policy's state.
    State(String),
    /// The state so far is handed to the policy as one of this schema.
    Migrate(u32),
    /// This very call; what comes of it is not carried out.
    Call(Box<RotationCall>),
    /// A call of a node's journal, made again.
    Journalled(Box<JournalledOf<RotationPolicy>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct EntryForm {
    advance: Option<Span>,
    sealing: Option<Size>,
    blocks: Option<u64>,
    before_wake: Option<Span>,
    usage: Option<UsageForm>,
    request: Option<String>,
    suspect: Option<SuspectForm>,
    link: Option<Link>,
    escrow: Option<Link>,
    clock: Option<Step>,
    crash: Option<Crash>,
    repeat: Option<u64>,
    of: Option<Vec<Entry>>,
    ext: Option<Extension>,
    state: Option<String>,
    migrate: Option<u32>,
    call: Option<RotationCall>,
    journalled: Option<JournalledOf<RotationPolicy>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum UsageForm {
    Bytes(Size),
    Full(UsageParts),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageParts {
    bytes: Size,
    blocks: Option<u64>,
    records: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SuspectForm {
    Epoch(u64),
    Word(String),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_yaml_ng::Value::deserialize(deserializer)?;
        if value.as_str() == Some("restart") {
            return Ok(Self::Restart);
        }
        let form: EntryForm = serde_yaml_ng::from_value(value).map_err(D::Error::custom)?;
        let sealing = form.sealing.map_or(0, |size| size.0);
        let mut found = Vec::new();
        found.extend(form.advance.map(|by| Self::Advance {
            by: by.0,
            bytes: sealing,
            blocks: form.blocks.unwrap_or(sealing / 4096),
        }));
        found.extend(form.before_wake.map(|by| Self::BeforeWake(by.0)));
        found.extend(form.usage.map(|usage| match usage {
            UsageForm::Bytes(Size(bytes)) => Self::Usage { bytes, blocks: bytes / 4096, records: bytes / 65_536 },
            UsageForm::Full(parts) => {
                let bytes = parts.bytes.0;
                let blocks = parts.blocks.unwrap_or(bytes / 4096);
                Self::Usage { bytes, blocks, records: parts.records.unwrap_or(blocks / 16) }
            }
        }));
        found.extend(form.request.map(Self::Request));
        found.extend(
            form.suspect
                .map(|which| match which {
                    SuspectForm::Epoch(epoch) => Ok(Self::Suspect(Some(epoch))),
                    SuspectForm::Word(word) if word == "current" => Ok(Self::Suspect(None)),
                    SuspectForm::Word(word) => {
                        Err(D::Error::custom(format!("suspect: {word:?} is not `current` or an epoch")))
                    }
                })
                .transpose()?,
        );
        found.extend(form.link.map(Self::Link));
        found.extend(form.escrow.map(Self::Escrow));
        found.extend(form.clock.map(|step| Self::Clock(step.0)));
        found.extend(form.crash.map(Self::Crash));
        found.extend(form.repeat.map(|times| Self::Repeat { times, of: form.of.unwrap_or_default() }));
        found.extend(form.ext.map(Self::Ext));
        found.extend(form.state.map(Self::State));
        found.extend(form.migrate.map(Self::Migrate));
        found.extend(form.call.map(|call| Self::Call(Box::new(call))));
        found.extend(form.journalled.map(|journalled| Self::Journalled(Box::new(journalled))));
        match <[Self; 1]>::try_from(found) {
            Ok([entry]) => Ok(entry),
            Err(found) => Err(D::Error::custom(format!("a timeline entry is one happening, not {}", found.len()))),
        }
    }
}
