//! This node in its site: its own lead, or a member of another one's.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use farseal_core::group::Phase;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::Node;
use super::pair::PairNode;
use crate::config::Site as SiteConfig;
use crate::control::api::{CommandReply, ErrorCode, ErrorReply, GroupCommand, SiteView};
use crate::control::operator::CommandError;
use crate::site::NoLead;
use crate::site::lead::{self, MemberId, Parts, ToLead};
use crate::site::member::Member;
use crate::site::net::{self, Dialler};
use crate::site::store::FileStore;
use crate::site::words::{Ask, Reply};

/// How long a group's pause is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Node {
    /// Starts the lead, or the connection to it. What comes back stops the lead.
    pub(super) async fn join_site(&self) -> anyhow::Result<Option<Sender<ToLead>>> {
        let shared = &self.shared;
        let member = Arc::new(Member::new(Arc::clone(shared), Arc::clone(&shared.site), &self.pairs));
        let lead = match &shared.config.site {
            SiteConfig::Leads { listen, members } => {
                let inbox = self.start_lead(&member)?;
                if let Some(address) = listen {
                    let known = members.iter().filter_map(|name| shared.config.peer(name));
                    let cards: Vec<_> = known.map(|peer| &peer.card).collect();
                    if !cards.is_empty() {
                        let tls = crate::keys::tls::server_config(&shared.identity, &cards)?;
                        let listener = TcpListener::bind(address)
                            .await
                            .map_err(|error| anyhow::anyhow!("[site] listen {address}: {error}"))?;
                        tracing::info!(address = %listener.local_addr()?, "the site's lead listens");
                        tokio::spawn(net::listen(listener, tls, inbox.clone(), shared.stop.subscribe()));
                    }
                }
                Some(inbox)
            }
            SiteConfig::Follows { lead } => {
                let peer = shared.config.peer(lead);
                let peer = peer.ok_or_else(|| anyhow::anyhow!("[site] lead {lead} is not configured"))?;
                let dialler = Dialler {
                    member: Arc::clone(&member),
                    addresses: peer.addresses.iter().map(ToString::to_string).collect(),
                    server: crate::keys::tls::server_name(&peer.card),
                    tls: crate::keys::tls::client_config(&shared.identity, &peer.card)?,
                    stop: shared.stop.subscribe(),
                };
                tokio::spawn(dialler.run());
                None
            }
        };
        tokio::spawn(member.run(Arc::clone(&shared.cuts_changed), shared.stop.subscribe()));
        Ok(lead)
    }

    fn start_lead(&self, member: &Arc<Member>) -> anyhow::Result<Sender<ToLead>> {
        let shared = &self.shared;
        let (inbox, reports) = channel();
        let store = FileStore::open(&shared.config.node.state_dir.join("site.redb"))?;
        let parts = Parts {
            node: shared.config.node.name.to_string(),
            clock: shared.clock,
            store: Box::new(store),
            intervals: shared.config.groups.iter().map(|group| (group.name.clone(), group.cuts)).collect(),
        };
        lead::start(parts, reports)?;
        // Its own member needs no wire.
        let own = MemberId(0);
        let obeys = Arc::clone(member);
        let downlink = Box::new(move |order| obeys.obey(order));
        inbox.send(ToLead::Joined { member: own, downlink }).map_err(|_| anyhow::anyhow!("the lead is gone"))?;
        let hello = member.hello();
        shared.site.set_uplink(Some(lead::local_uplink(inbox.clone(), own)));
        shared.site.report(hello);
        Ok(inbox)
    }

    pub(super) async fn ask_lead(&self, ask: Ask) -> Result<Reply, CommandError> {
        self.shared.site.ask(ask).await.map_err(no_lead)
    }

    pub(super) async fn view_site(&self) -> Result<SiteView, CommandError> {
        self.shared.site.view().await.map_err(no_lead)
    }

    /// Has the lead carry out a command on a group.
    pub(super) async fn command_group(
        &self,
        group: String,
        command: GroupCommand,
    ) -> Result<CommandReply, CommandError> {
        let waits = matches!(command, GroupCommand::Pause { wait: true, .. });
        let done = match self.ask_lead(Ask::Group { group: group.clone(), command }).await? {
            Reply::Done(reply) => reply,
            Reply::No(reply) => return Err(CommandError::Lead(reply)),
            Reply::View(_) => return Err(no_lead(NoLead::Unreachable)),
        };
        if waits {
            self.wait_for_pause(&group).await?;
        }
        Ok(done)
    }

    async fn wait_for_pause(&self, name: &str) -> Result<(), CommandError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.view_site().await?;
            let group = view.site.groups.into_iter().find(|group| group.name == name);
            let Some(writes) = group.and_then(|group| group.writes) else { return Ok(()) };
            // Resumed meanwhile is no longer to be waited for.
            if writes.settled || writes.phase == Phase::Running {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CommandError::NotYet { what: "the pause".into() });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// A command that would set a pair of a group apart from the others needs that said.
    pub(super) fn must_be_alone(
        &self,
        pair: &PairNode,
        alone: bool,
        command: &'static str,
    ) -> Result<(), CommandError> {
        if alone || !pair.is_grouped() {
            return Ok(());
        }
        Err(CommandError::Grouped { pair: pair.config.name.clone(), group: pair.config.group.clone(), command })
    }

    /// One pair of a group that was paused at one cut does not go on by itself.
    pub(super) fn must_not_be_paused_together(&self, pair: &PairNode) -> Result<(), CommandError> {
        let site = self.shared.site.status();
        let group = site.as_ref().and_then(|site| site.group_of(pair.config.id));
        let phase = group.and_then(|group| group.writes.as_ref()).map(|writes| writes.phase);
        let Some(Phase::Paused { cut, .. }) = phase else { return Ok(()) };
        let group = &pair.config.group;
        Err(CommandError::Refused {
            reason: format!("pair {} is paused with its group {group}, at cut {cut}", pair.config.name),
            next: Some(format!("`farseal resume --group {group}`")),
        })
    }
}

fn no_lead(error: NoLead) -> CommandError {
    let next = match error {
        NoLead::Unreachable => "see that the lead's node runs and is reachable; the node's log says why it is not",
        NoLead::Slow => {
            "what was decided goes on; `farseal status --site` shows how far it is and what hinders which pair"
        }
    };
    CommandError::Lead(ErrorReply { code: ErrorCode::Failed, message: error.to_string(), next: Some(next.into()) })
}
