//! The annotated configuration that `farseal init` writes. It parses as it is; a line that begins with `#` and no blank
//! is a field at its default or an example of a section, to be uncommented.

use crate::keys::card::NodeName;

/// The configuration of a node with this name. `passphrase_file` as it shall stand in the file.
#[must_use]
pub fn example(name: &NodeName, passphrase_file: &str) -> String {
    let passphrase_file = toml::Value::String(passphrase_file.to_owned());
    TEMPLATE.replace("@NAME@", name.as_str()).replace("@PASSPHRASE@", &passphrase_file.to_string())
}

const TEMPLATE: &str = r##"# The configuration of one farseal node. `farseal run --config THIS-FILE` starts it.
#
# Relative paths count from this file's folder. Sizes: B, KiB, MiB, GiB, TiB. Durations: ms, s, m, h, d.
# A line that begins with # and no blank is a field at its default, or an example.

[node]
# As in the node's card and certificate: a-z, 0-9 and -.
name = "@NAME@"
# Journals, logs, indexes and the sealed identity. Fast storage with a flush that is honest.
#state-dir = "state"
# The Unix socket that `farseal status` and the other commands talk to; its owner alone can.
#control-socket = "state/control.sock"
# Keys in swap: "avoided" (the node locks its memory; where it may not, the log says so), "refused" (then it does not start) or
# "accepted" (nothing is locked). LimitMEMLOCK=infinity in the service's unit lets it lock, or MemorySwapMax=0 does without.
#keys-in-swap = "avoided"
# The form of log lines: "text" or "json".
#log = "text"
# Which log lines, in RUST_LOG's syntax.
#log-filter = "info"

# What the node's secrets are sealed under: one of the two.
[secrets]
# A file with a passphrase, mode 600.
passphrase-file = @PASSPHRASE@
# Or systemd: LoadCredentialEncrypted=farseal in the service's unit.
#credential = false

# Where initiators connect.
[nbd]
# "unix:PATH" and "tcp:ADDRESS:PORT", any number.
listen = ["unix:nbd.sock"]
# TLS on the TCP listeners: "off", "allowed" (at the client's option) or "required".
#tls = "off"
# The server's certificate chain and key, in PEM; needed unless tls is "off".
#cert = "server.pem"
#key = "server.key"
# Clients must show a certificate signed by one of these.
#client-ca = "clients.pem"

# Where primaries connect to the secondaries here. Not needed on a node without secondaries.
[link]
#listen = "0.0.0.0:7440"

# A node that keeps keys for other sites, and no data: it has this section and one for each of these peers, and neither pairs
# nor volumes. `farseal escrow open` and `farseal escrow admit` write them.
# [escrow]
# listen = "0.0.0.0:7450"

# The nodes of this site, for groups with pairs on several of them. Not needed on a node that is alone.
[site]
# true where this node leads: it holds the site's control information and makes the groups' cuts. Elsewhere the name of
# the lead's peer section, whose addresses are where the lead listens for its site.
#lead = true
# The lead only: where the site's other nodes connect, and the names of their peer sections.
#listen = "0.0.0.0:7441"
#members = ["remote"]

# Prometheus. The control socket always serves /metrics; this adds a TCP address, without a password.
[metrics]
#listen = "127.0.0.1:9740"

[plugins]
# A component without a path, such as "interval", is interval.wasm in here.
#dir = "plugins"
# No component is taken without a result of the conformance kit that is its own and without a failure. It lies beside the
# component, as interval.conformance.json: `farseal plugin conform interval.wasm --json interval.conformance.json`.
# A result will do whose stories ended early, as a call costs much (an interpreter): the log names the rules of which fewer were told.
#require-conformance = false

# ---- What follows is written by `farseal pair create` and `farseal pair accept`. -------------------------------

# Another node.
#[[peer]]
# What this file calls it.
#name = "remote"
# "HOST:PORT", one for each path to it. Not needed where it connects to us.
#addresses = ["remote.example:7440"]
# An escrow site only: how often 16 KiB go there and back, whether there is a key to deposit or not.
#beat = "1s"
# The text that `farseal pair card` prints there.
#card = '''
#...
#'''

# A block device image that this node exports over NBD.
#[[volume]]
# The export's name.
#name = "vault"
# A file or a block device.
#path = "volumes/vault.img"
# Makes the file when there is none. Leave it out for what exists.
#size = "10GiB"
# For people; NBD clients show it.
#description = "the vault's records"

# A volume and its copy.
#[[pair]]
# What the CLI calls it.
#name = "vault-1"
# Drawn by `farseal pair create`; the same at both sites.
#id = "00112233445566778899aabbccddeeff"
#volume-id = "ffeeddccbbaa99887766554433221100"
# The [[peer]] with the other side.
#peer = "remote"
# The [[peer]] that is the pair's escrow site, and who can open the copy: "escrow" (that site alone) or "both" (the secondary
# too). Without an escrow the secondary can. No key is used before the escrow has it. The same at both sites.
# escrow = "escrow"
# key-holders = "escrow"
# Pairs of one group, on whatever nodes of the site, are cut, paused and taken over together; name it alike at both sites.
#group = "default"
# "primary" where initiators write, "secondary" where the copy is kept.
#role = "primary"
# Primary: the [[volume]]. Secondary: the export's name after a takeover; the pair's name unless given.
#volume = "vault"
# Primary: what of the volume is copied, as "0..10GiB" or a list of such ranges: whole blocks, and no other pair's. Nothing:
# all of it. Several pairs copy ranges of one volume, each to its own peer; initiators see one export. The copy is a volume
# of these ranges, one after the other.
#range = []
# Primary: what the volume holds already at the pair's first start, and is copied: "used" (what may hold data), "all" (every
# block), "written" (nothing: only what is written from then on). What is written later is always copied.
#pick = "used"
# Secondary only: bytes of the primary's volume.
# size = "10GiB"
# Secondary only: the file that what is opened of the copy is put into, made when it is first needed; on another disk than the state
# folder, a recovery reads one disk and writes the other. Nothing: a file in the pair's folder.
# image = "vault-opened.img"
# Seal every record? The same at both sites; a record that disagrees is refused.
#encrypted = true
# The seal unit: 512 to 65536, a power of two; the same at both sites.
#block-bytes = 4096
# Where the volume is made of records of one length: which bytes of one are key fields, so that after a takeover a record can be
# found and opened alone (`farseal recover search`, recovery strategy "search-only"). A record is whole blocks, a field lies in
# one block. form: "raw", "text" (without spaces and NULs at its end), "text-no-case", "number-le", "number-be". Each field costs
# 16 bytes a block. Whole blocks are sealed: a write of a part of one seals the whole block again. The same at both sites, for
# the pair's life; it needs a new pair to change.
# layout = { record-bytes = 512, fields = [{ name = "id", offset = 0, length = 8, form = "number-le" }] }
# "ordered" (over one path, in order; the others stand by) or "scheduled" (over every path, in any order; the remote puts
# them in order). `farseal transfer PAIR ..` changes it and the number of paths while the node runs.
#transfer = "ordered"
# Connections of the link, 1 to 16, spread over the peer's addresses.
#paths = 1
# When initiators are answered. "async": a WRITE when it has its place, a FLUSH when it is durable here; "sync-flush":
# a FLUSH when it is durable at the remote, too; "sync": every WRITE. Without a link all go on as durable here, and
# `status` says that the mode is not kept. `farseal mode PAIR MODE` changes it while the node runs.
#mode = "async"
# Must the copy follow in the order of the writes? With false a place that is written again and again is sent once a minute,
# for a link that is thin or dear. The copy then offers the volume as it stood at moments when nothing was owed, at most
# some minutes old, and none between them. Only in mode "async", and the pair must be alone in its group.
#ordered-writes = true
# How the key changes unless the policy says: "in-band" (no pause) or "pause" (send, stop, change, go on; it shows on the
# link, so with a disguise other than "plain" it needs a shape).
#rotate = "in-band"
# The host's limits around the policy plugin. At max-age or max-bytes sealing stops until there is a new key.
#key-limits = { min-interval = "100ms", max-age = "30d", max-bytes = "16TiB" }
# Beyond it, what the secondary lacks is remembered by place, and the journal is let go.
#journal-max = "4GiB"
# Wherever the copy is kept: for how long every earlier point of it can be gone back to, as in "24h", by this site's clock; and
# how much of the log may be kept for that. When there is less room, or the disk is full, the oldest points go first, never
# the newest nor what `farseal recover pin` keeps. "none": only the newest point, and pins.
#retention = "none"
#retention-size = "none"
# Wherever the copy is kept: this site takes over by itself when neither it nor the pair's escrow has heard the main site for so
# long, as in "10m"; the escrow says so under its signature, which is kept. A main site that lives and that neither can hear writes
# on: two histories then, of which one is kept as a branch. "none": never by itself.
#witness-silence = "none"
# Wherever the copy is kept: true opens it as it comes, in an image of its own beside the sealed copy, as large as the data.
# A takeover then serves those blocks without a key, and the NBD export VOLUME.copy shows them meanwhile, to read. Whoever
# gets that site's disks reads them, too. Not with a layout, nor with key-holders = "escrow".
#open-on-arrival = false
# Percent of journal-max above which answers to writes are delayed, and the delay when it is full; "0ms": never. A journal
# that is full goes over to remembering by place, and nobody is slowed any more.
#journal-high-water = 80
#pace-max = "20ms"
# No faster than this, as in "50MiB/s": everything on the link, copying after an outage, the first copy.
# `farseal throttle PAIR ..` changes it while the node runs.
#limits = { link = "none", resync = "none", initial-copy = "none" }
# What each path shows to whoever watches it, as in "32MiB/s": so much all the time, and a sixteenth of it back, whatever is
# sent. With a disguise only such a pair may pause for a key. "none": a path shows when and how much is sent.
#shape = "none"
# What the records cross, the same at both sites: "tls", anything; or "san", a fabric that you trust with how long and how
# often: every byte is authenticated and keys and places are sealed, but what the data key sealed is not sealed twice.
#link = "tls"
# The plugins. component: a name in [plugins] dir, or a path. sha256: what its bytes must be; `farseal plugin inspect`
# shows it. grants: ["raw"] lets a cipher see blocks and derived keys. config: the plugin's own settings. conformance: a
# file with the result of the conformance kit that is demanded of it; "none": as [plugins] require-conformance says.
#cipher = { component = "aes-256-gcm", sha256 = "0000000000000000000000000000000000000000000000000000000000000000", grants = [], config = {}, conformance = "none" }
#policy = { component = "interval", sha256 = "0000000000000000000000000000000000000000000000000000000000000000", grants = [], config = {}, conformance = "none" }
#disguise = { component = "cover", sha256 = "0000000000000000000000000000000000000000000000000000000000000000", grants = [], config = {}, conformance = "none" }
#recovery = { component = "on-access", sha256 = "0000000000000000000000000000000000000000000000000000000000000000", grants = [], config = {}, conformance = "none" }

# What the lead knows of a group; a group needs no section.
#[[group]]
#name = "default"
# How often the pairs of a group of several get a common point to recover to: a duration of at least 40ms, or "off".
#cuts = "250ms"
"##;

#[cfg(test)]
mod tests;
