//! What the main site gives to the remote when a pair is made. Nothing in it is secret; that it is the main site's is
//! shown by the fingerprint, which two people compare.

use std::fmt;
use std::str::FromStr;

use farseal_core::layout::{BadLayout, Field, Layout};
use farseal_core::units::{BadBlockBytes, BlockBytes, ByteLen, PairId, VolumeId};
use serde::{Deserialize, Serialize};

use crate::config::PeerAddress;
use crate::config::sections::{self, parse_peer_address};
use crate::keys::card::{CardError, PeerCard};

/// Bytes of an invitation at most; a hybrid card takes 2 500.
pub(super) const INVITATION_BYTES_MAX: u64 = 16 << 10;
const FORMAT: u32 = 1;

/// A pair, as the primary offers it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Invitation {
    pub(super) pair: String,
    pub(super) group: String,
    pub(super) id: PairId,
    pub(super) volume_id: VolumeId,
    pub(super) size: ByteLen,
    pub(super) block_bytes: BlockBytes,
    pub(super) encrypted: bool,
    pub(super) scheduled: bool,
    pub(super) paths: u16,
    /// The records cross a trusted fabric.
    pub(super) san: bool,
    pub(super) card: PeerCard,
    /// Where the main site listens, if the roles may change.
    pub(super) addresses: Vec<PeerAddress>,
    pub(super) escrow: Option<OfferedEscrow>,
    /// The component that hides the pair's keys, which the remote needs as well: one without a path, or nothing.
    pub(super) disguise: Option<String>,
    /// How initiators' records look.
    pub(super) layout: Option<Layout>,
}

/// The pair's escrow site, as the main site knows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfferedEscrow {
    pub(super) card: PeerCard,
    pub(super) addresses: Vec<PeerAddress>,
    /// The secondary holds the keys as well.
    pub(super) both: bool,
}

/// Why a text is no invitation.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvitationError {
    #[error("this is no invitation: {0}")]
    Toml(#[from] toml::de::Error),
    #[error("invitation format {0} is not known to this version, which reads {FORMAT}")]
    Format(u32),
    #[error("field {field}: 32 hexadecimal digits are needed")]
    Id { field: &'static str },
    #[error("field block-bytes: {0}")]
    Block(#[from] BadBlockBytes),
    #[error("field addresses: {0}")]
    Address(String),
    #[error("field layout: {0}")]
    Layout(#[from] BadLayout),
    #[error("field card: {0}")]
    Card(#[from] CardError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Text {
    format: u32,
    pair: String,
    #[serde(default = "default_group")]
    group: String,
    id: String,
    volume_id: String,
    size_bytes: u64,
    block_bytes: u32,
    encrypted: bool,
    scheduled: bool,
    paths: u16,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    san: bool,
    card: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    escrow: Option<EscrowText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disguise: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<LayoutText>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct LayoutText {
    record_bytes: u32,
    fields: Vec<Field>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct EscrowText {
    both: bool,
    addresses: Vec<String>,
    card: String,
}

fn parse_addresses(texts: &[String]) -> Result<Vec<PeerAddress>, InvitationError> {
    let parse = |text: &String| parse_peer_address(text).map_err(|error| InvitationError::Address(error.to_string()));
    texts.iter().map(parse).collect()
}

fn default_group() -> String {
    sections::DEFAULT_GROUP.into()
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text: Text = toml::from_str(text)?;
        if text.format != FORMAT {
            return Err(InvitationError::Format(text.format));
        }
        let id = |field, text: &str| sections::parse_id(text).map_err(|_| InvitationError::Id { field });
        let block_bytes = BlockBytes::new(text.block_bytes)?;
        let layout =
            text.layout.map(|layout| Layout::new(layout.record_bytes, block_bytes, layout.fields)).transpose()?;
        Ok(Self {
            layout,
            id: PairId(id("id", &text.id)?),
            volume_id: VolumeId(id("volume-id", &text.volume_id)?),
            size: ByteLen(text.size_bytes),
            block_bytes,
            encrypted: text.encrypted,
            scheduled: text.scheduled,
            paths: text.paths,
            san: text.san,
            card: text.card.parse()?,
            addresses: parse_addresses(&text.addresses)?,
            escrow: match text.escrow {
                Some(EscrowText { both, addresses, card }) => {
                    Some(OfferedEscrow { card: card.parse()?, addresses: parse_addresses(&addresses)?, both })
                }
                None => None,
            },
            disguise: text.disguise,
            pair: text.pair,
            group: text.group,
        })
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Text {
            format: FORMAT,
            pair: self.pair.clone(),
            group: self.group.clone(),
            id: self.id.to_string(),
            volume_id: self.volume_id.to_string(),
            size_bytes: self.size.0,
            block_bytes: self.block_bytes.get(),
            encrypted: self.encrypted,
            scheduled: self.scheduled,
            paths: self.paths,
            san: self.san,
            card: self.card.to_string(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            escrow: self.escrow.as_ref().map(|escrow| EscrowText {
                both: escrow.both,
                addresses: escrow.addresses.iter().map(ToString::to_string).collect(),
                card: escrow.card.to_string(),
            }),
            disguise: self.disguise.clone(),
            layout: self
                .layout
                .as_ref()
                .map(|layout| LayoutText { record_bytes: layout.record_bytes(), fields: layout.fields().to_vec() }),
        };
        let text = toml::to_string(&text).map_err(|_| fmt::Error)?;
        write!(f, "# An invitation to a farseal pair: `farseal pair accept THIS-FILE` at the remote site.\n{text}")
    }
}
