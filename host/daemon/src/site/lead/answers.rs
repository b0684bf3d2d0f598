//! What a coordinator answers, in an operator's words.

use farseal_core::group::Refusal;
use farseal_core::units::{CutNumber, Ticket};

use super::super::words::Reply;
use super::{Lead, refused};
use crate::control::api::CommandReply;

/// What is to be done at the site that was taken over from.
const TAKEN_NEXT: &str =
    "connect initiators to the exports there; when this site is well again: `farseal rejoin` each pair";

impl Lead {
    pub(super) fn answer(&mut self, name: &str, ticket: Ticket, result: Result<CutNumber, Refusal>) {
        if self.heard_for_presets(name, ticket, &result) {
            return;
        }
        let Some(waiting) = self.waiting.remove(&ticket) else { return };
        let reply = match result {
            Ok(cut) => {
                if let Some(word) = &waiting.word {
                    self.word_on_pause(name, word);
                }
                if waiting.command == "declare" {
                    let at = self.clock.now().wall;
                    self.record(name, |record| record.declared = Some(at));
                }
                Reply::Done(done(waiting.command, name, cut))
            }
            Err(refusal) => {
                let more = match &refusal {
                    Refusal::Missing(pairs)
                    | Refusal::NotInOrder(pairs)
                    | Refusal::Abandoned(pairs)
                    | Refusal::NotStill(pairs)
                    | Refusal::NotCopied(pairs) => format!(": {}", self.names(pairs)),
                    Refusal::Unable(pairs) | Refusal::NotTaken(pairs) => format!(": {}", self.unable(name, pairs)),
                    Refusal::Fenced(_) => self.when_declared(name),
                    Refusal::Paused
                    | Refusal::NotPaused
                    | Refusal::Turning
                    | Refusal::Declaring
                    | Refusal::GivenUp
                    | Refusal::NotKept
                    | Refusal::TooMany
                    | Refusal::Empty => String::new(),
                };
                let what = match (&refusal, waiting.command) {
                    (Refusal::Turning | Refusal::Declaring | Refusal::GivenUp | Refusal::Fenced(_), _) => "",
                    (_, "declare") => "; what was not taken over goes on here",
                    (_, "swap-sides") => "; all pairs go on here",
                    (_, "resume") => "; nothing was changed",
                    _ => "; no cut was made",
                };
                Reply::No(refused(format!("{refusal}{more}{what}"), Some(next(&refusal, name))))
            }
        };
        self.reply(waiting.member, waiting.ask, reply);
    }

    fn when_declared(&self, name: &str) -> String {
        let declared = self.groups.get(name).and_then(|group| group.record.declared);
        // A lead that ended meanwhile never heard the answer.
        declared.map_or_else(String::new, |at| {
            format!("; its disaster was declared here {} s ago", self.clock.now().wall.since(at).0 / 1_000)
        })
    }

    /// Each with why, where its node said so.
    fn unable(&self, name: &str, pairs: &[farseal_core::units::PairId]) -> String {
        let obstacles = self.groups.get(name).map(|group| &group.obstacles);
        let told = pairs.iter().map(|pair| {
            let obstacle = obstacles.and_then(|obstacles| obstacles.get(pair));
            let why = obstacle.map_or("it is not ready yet", String::as_str);
            format!("{} ({why})", self.names(&[*pair]))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

fn done(command: &str, name: &str, cut: CutNumber) -> CommandReply {
    match command {
        "pause" => {
            CommandReply::new(format!("all pairs of group {name} stop at cut {cut}; the copies keep it until resume"))
        }
        "resume" => CommandReply::new(format!("the pairs of group {name} that are written here go on from cut {cut}")),
        "swap-sides" => {
            let message = format!("the other site writes all pairs of group {name} now, from cut {cut} on");
            let next = "connect initiators to the exports there; this site keeps the copies".to_owned();
            CommandReply { message, details: Vec::new(), next: Some(next), report: None }
        }
        "declare" => {
            let at = if cut == CutNumber::NONE {
                "an earlier cut than this site's last".into()
            } else {
                format!("cut {cut}")
            };
            let message = format!(
                "the other site takes all pairs of group {name} over, at {at} or a later one; this site is fenced"
            );
            CommandReply { message, details: Vec::new(), next: Some(TAKEN_NEXT.to_owned()), report: None }
        }
        _ => CommandReply::new(format!("cut {cut} of group {name} is made; the copies offer it once all hold it")),
    }
}

fn next(refusal: &Refusal, name: &str) -> String {
    match refusal {
        Refusal::Paused => format!("`farseal resume --group {name}`"),
        Refusal::NotPaused => format!("`farseal pause --group {name}`"),
        Refusal::Missing(_) => "start their nodes, or see that they reach the lead".into(),
        Refusal::NotInOrder(_) => "wait until `farseal status` says that they are".into(),
        Refusal::Unable(_) => format!("mend that, then `farseal swap --group {name}`"),
        Refusal::NotStill(_) | Refusal::NotCopied(_) => {
            format!("`farseal swap --group {name}` again, with less load or a faster link")
        }
        Refusal::Turning => format!(
            "`farseal status --site` shows how far it is; `farseal resume --group {name}` has the pairs go on that are here still"
        ),
        Refusal::Fenced(_) => TAKEN_NEXT.into(),
        Refusal::Declaring => "wait for its end; `farseal status --site` shows the pairs".into(),
        Refusal::NotTaken(_) => format!("at the other site: `farseal takeover --group {name}`"),
        Refusal::NotKept => "mend the disk of the lead's state folder, then try again; its log says more".into(),
        Refusal::GivenUp | Refusal::Abandoned(_) | Refusal::TooMany | Refusal::Empty => {
            "`farseal status --site` shows the group".into()
        }
    }
}
