//! Nodes as processes of their own: made with `farseal init`, started, asked, and killed with SIGKILL.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Below what Linux takes ports for connections from (`net.ipv4.ip_local_port_range`, 32768 and up), above well-known services.
const PORTS: Range<u16> = 12_000..32_000;
/// Ports between the first ones of programs whose process numbers follow each other.
const PORTS_APART: u32 = 211;

/// A folder for one run and the processes in it. However this program ends, by Ctrl-C too, nothing is left running:
/// a shell of its own process group waits for the end of a pipe that only this program holds.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    warden: RefCell<Child>,
}

/// Reads `start PID`, `end PID` and `keep`; at the end of its input it kills and clears up.
const WARDEN: &str = r#"pids=" "; keep=
while read -r word pid; do case "$word" in
  start) pids="$pids$pid " ;;
  end) pids="${pids%% $pid *} ${pids#* $pid }" ;;
  keep) keep=yes ;;
esac; done
for pid in $pids; do kill -KILL "$pid" 2>/dev/null; done
[ -n "$keep" ] || rm -rf -- "$1"
"#;

impl Stage {
    /// Below `TMPDIR`; the name is short, as a Unix socket's path is at most 107 bytes long.
    pub(crate) fn new(purpose: &str) -> Result<Rc<Self>> {
        let dir = std::env::temp_dir().join(format!("farseal-{purpose}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut warden = Command::new("sh");
        warden.args(["-c", WARDEN, "warden"]).arg(&dir).process_group(0);
        let warden = warden.stdin(Stdio::piped()).spawn().context("cannot start sh")?;
        Ok(Rc::new(Self { dir, warden: RefCell::new(warden) }))
    }

    /// Leaves the folder where it is.
    pub(crate) fn keep(&self) {
        self.tell("keep -");
    }

    pub(crate) fn started(&self, child: &Child) {
        self.tell(&format!("start {}", child.id()));
    }

    pub(crate) fn ended(&self, child: &Child) {
        self.tell(&format!("end {}", child.id()));
    }

    fn tell(&self, words: &str) {
        if let Some(pipe) = &mut self.warden.borrow_mut().stdin {
            // A warden that is gone can be told nothing; the run itself does not depend on it.
            let _ = writeln!(pipe, "{words}");
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let warden = self.warden.get_mut();
        drop(warden.stdin.take());
        let _ = warden.wait();
    }
}

/// A TCP port of this machine that nobody uses, and that nobody gets before the node that it is for listens there: it lies
/// outside the range from which the system takes ports for connections, and this program gives out each port once. Programs
/// that run at the same time begin at different places.
pub(crate) fn free_port() -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let places = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(PORTS_APART);
    for _ in 0..places {
        let place = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % places;
        let port = PORTS.start + u16::try_from(place)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free TCP port from {} to {}", PORTS.start, PORTS.end - 1)
}

/// `farseal rotate --force` without its process, whose start takes more from the machine than a change of key. The answer
/// comes over the stream that is returned: a refusal at once, everything else when the key has changed.
pub(crate) fn begin_rotation(control: &Path, pair: &str, how: &str) -> Result<UnixStream> {
    begin_command(control, pair, "rotate", &format!("{{\"how\":\"{how}\",\"force\":true}}"))
}

/// Asks for what the node refuses, as nothing is paused: it takes the way through the node that a rotation takes.
pub(crate) fn begin_nothing(control: &Path, pair: &str) -> Result<UnixStream> {
    begin_command(control, pair, "resume", "{}")
}

/// Is a change of key under way? As [`begin_rotation`], without a process.
pub(crate) fn changes_key(control: &Path, pair: &str) -> Result<bool> {
    let mut reply = String::new();
    begin_command(control, pair, "key", "{\"do\":\"status\"}")?.read_to_string(&mut reply)?;
    let body = reply.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let said: Value = serde_json::from_str(body).with_context(|| format!("the node answers {reply}"))?;
    Ok(!said["report"]["under-way"].is_null())
}

fn begin_command(control: &Path, pair: &str, command: &str, body: &str) -> Result<UnixStream> {
    let mut stream =
        UnixStream::connect(control).with_context(|| format!("nobody listens at {}", control.display()))?;
    let length = body.len();
    let request = format!(
        "POST /v1/pairs/{pair}/{command} HTTP/1.1\r\nhost: farseal\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting for {what}"))? {
            return Ok(answer);
        }
        if begun.elapsed() > patience {
            bail!("{what} did not come within {} s", patience.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Two nodes that copy one volume: what `pair create` and `pair accept` are told.
#[derive(Debug, Clone)]
pub(crate) struct PairTerms<'a> {
    pub(crate) name: &'a str,
    pub(crate) volume: &'a Path,
    pub(crate) mebibytes: u64,
    /// Further words of `pair create`.
    pub(crate) options: &'a [&'a str],
}

/// One node: its folder, its configuration and, while it runs, its process.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    binary: PathBuf,
    stage: Rc<Stage>,
    process: Option<Child>,
}

impl Site {
    /// `farseal init`; its components are those in `plugins`.
    pub(crate) fn init(stage: &Rc<Stage>, binary: &Path, plugins: &Path, name: &str) -> Result<Self> {
        let dir = stage.dir.join(name);
        let site = Self { name: name.into(), dir, binary: binary.into(), stage: Rc::clone(stage), process: None };
        let dir = site.dir.display().to_string();
        site.run(Command::new(binary).args(["init", "--dir", &dir, "--name", name]))?;
        site.edit("#dir = \"plugins\"", &format!("dir = {}", Value::from(plugins.display().to_string())))?;
        Ok(site)
    }

    /// A second node with everything that this one has on disk. This one must not run.
    pub(crate) fn copy(&self, name: &str) -> Result<Self> {
        let dir = self.stage.dir.join(name);
        let status = Command::new("cp").arg("-a").arg(&self.dir).arg(&dir).status()?;
        if !status.success() {
            bail!("cp -a {} {}: {status}", self.dir.display(), dir.display());
        }
        let (binary, stage) = (self.binary.clone(), Rc::clone(&self.stage));
        Ok(Self { name: name.into(), dir, binary, stage, process: None })
    }

    /// Starts a command of the node's own program and does not wait for it.
    pub(crate) fn begin(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config()).args(words).stdin(Stdio::null());
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Makes a pair whose primary is here. The card and the invitation go through files, as between two operators.
    pub(crate) fn pair_with(&self, remote: &Self, terms: &PairTerms<'_>) -> Result<()> {
        let port = free_port()?;
        self.pair_over(remote, terms, port, port)
    }

    /// As [`Self::pair_with`]; main connects to `port`, and the remote listens on `listens`.
    pub(crate) fn pair_over(&self, remote: &Self, terms: &PairTerms<'_>, port: u16, listens: u16) -> Result<()> {
        let card = remote.card()?;
        let invitation = self.stage.dir.join(format!("{}.invitation", terms.name));
        let (size, address) = (format!("{}MiB", terms.mebibytes), format!("127.0.0.1:{port}"));
        let [volume, invitation] = [terms.volume, &invitation].map(|path| path.display().to_string());
        let mut words = vec!["pair", "create", terms.name, "--volume", &volume, "--size", &size];
        words.extend(["--peer-card", &card, "--peer-address", &address, "--invitation", &invitation]);
        words.extend(terms.options);
        let said = self.farseal(&words)?;
        let fingerprint = said.lines().find_map(|line| line.rsplit_once("fingerprint: ")).context("no fingerprint")?.1;
        let address = format!("127.0.0.1:{listens}");
        let words = ["pair", "accept", &invitation, "--listen", &address, "--fingerprint", fingerprint];
        remote.farseal(&words).map(drop)
    }

    /// Makes `escrow` a site that keeps keys, which this one knows by its own name; `remote` may ask for them, too. Says on which
    /// port it listens.
    pub(crate) fn add_escrow(&self, escrow: &Self, remote: &Self) -> Result<u16> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        escrow.farseal(&["escrow", "open", "--listen", &address])?;
        for site in [self, remote] {
            escrow.farseal(&["escrow", "admit", &site.card()?])?;
        }
        self.farseal(&["escrow", "add", &escrow.card()?, "--address", &address])?;
        Ok(port)
    }

    /// A file with who this is.
    fn card(&self) -> Result<String> {
        let file = self.dir.join("card");
        fs::write(&file, self.farseal(&["pair", "card"])?)?;
        Ok(file.display().to_string())
    }

    /// Changes the configuration where the text first stands outside of comments, which show the same fields; of a comment only what
    /// begins with its `#` is changed.
    pub(crate) fn edit(&self, from: &str, to: &str) -> Result<()> {
        let file = self.config();
        let text = edited(&fs::read_to_string(&file)?, from, to).with_context(|| file.display().to_string())?;
        Ok(fs::write(&file, text)?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("farseal.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// An export, as libnbd, QEMU and fio name it.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    /// Starts the node and waits until it answers. Says how long that took.
    pub(crate) fn start(&mut self) -> Result<Duration> {
        let log_file = self.log();
        let log = File::options().create(true).append(true).open(&log_file)?;
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config()).arg("run");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let begun = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.stage.started(&child);
        let child = self.process.insert(child);
        let control = self.dir.join("state/control.sock");
        wait_for(&format!("the start of {}", self.name), Duration::from_secs(30), || {
            if let Some(status) = child.try_wait()? {
                bail!("it ended at once ({status}):\n{}", last_lines(&log_file, 10).join("\n"));
            }
            // The control socket is bound last, when everything else is up.
            Ok(UnixStream::connect(&control).ok())
        })?;
        Ok(begun.elapsed())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// SIGKILL, as far as software can cut the power.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
            self.stage.ended(&process);
        }
        Ok(())
    }

    /// A command of the node's own program; what it says.
    pub(crate) fn farseal(&self, words: &[&str]) -> Result<String> {
        self.run(Command::new(&self.binary).arg("--config").arg(self.config()).args(words))
    }

    fn run(&self, command: &mut Command) -> Result<String> {
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            bail!("{}: farseal {}: {}{said}", self.name, words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }

    /// The status of its only pair.
    pub(crate) fn status(&self) -> Result<Status> {
        let text = self.farseal(&["status", "--json"])?;
        let node: Value = serde_json::from_str(&text)?;
        Ok(Status(node["pairs"][0].clone()))
    }

    /// Asks for the status until it is as wanted.
    pub(crate) fn wait_until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        wait_for(&format!("{}: {what}", self.name), Duration::from_secs(120), || {
            Ok(Some(self.status()?).filter(|status| wanted(status)))
        })
    }

    /// The end of its log.
    pub(crate) fn last_lines(&self, count: usize) -> Vec<String> {
        last_lines(&self.log(), count)
    }
}

fn edited(text: &str, from: &str, to: &str) -> Result<String> {
    let counts = |at: usize| {
        let at = at + from.len() - from.trim_start_matches('\n').len();
        let begins = text[..at].rfind('\n').map_or(0, |end| end + 1);
        from.trim_start().starts_with('#') || !text[begins..].starts_with('#')
    };
    let Some((at, _)) = text.match_indices(from).find(|(at, _)| counts(*at)) else {
        bail!("it has no {from} outside of comments");
    };
    Ok([&text[..at], to, &text[at + from.len()..]].concat())
}

fn last_lines(log: &Path, count: usize) -> Vec<String> {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A pair, as `farseal status --json` shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Status(Value);

impl Status {
    pub(crate) fn state(&self) -> &str {
        self.0["state"]["is"].as_str().unwrap_or("?")
    }

    /// Sequence numbers; `last`, `durable`, `safe` or `homed`.
    pub(crate) fn mark(&self, name: &str) -> u64 {
        self.0["marks"][name].as_u64().unwrap_or(0)
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.0["key"]["epoch"].as_u64().unwrap_or(0)
    }

    pub(crate) fn lag_records(&self) -> u64 {
        self.0["lag"]["records"].as_u64().unwrap_or(0)
    }

    pub(crate) fn lag_bytes(&self) -> u64 {
        self.0["lag"]["bytes"].as_u64().unwrap_or(0)
    }

    pub(crate) fn lag_millis(&self) -> u64 {
        self.0["lag"]["time"].as_u64().unwrap_or(0)
    }

    /// What the dirty map owes.
    pub(crate) fn owed_bytes(&self) -> u64 {
        self.0["state"]["owed"].as_u64().unwrap_or(0)
    }

    /// Of a volume that was taken over: blocks open, blocks with data.
    pub(crate) fn opened(&self) -> (u64, u64) {
        let part = |name: &str| self.0["state"][name].as_u64().unwrap_or(0);
        (part("opened"), part("of"))
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.0["last-error"]["message"].as_str()
    }

    /// Copying, and nothing owed.
    pub(crate) fn is_safe(&self) -> bool {
        self.state() == "copying" && self.lag_bytes() == 0 && self.mark("safe") == self.mark("last")
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const TEXT: &str = "#gap = \"2s\"\n# gap = \"2s\"\n\n[[pair]]\ngap = \"2s\"\nlimits = { gap = \"3s\" }\n";

    #[test]
    fn what_is_changed_is_the_field_and_not_the_comment_that_shows_its_default() {
        let found = edited(TEXT, "gap = \"2s\"", "gap = \"1s\"").unwrap();
        assert_eq!(found, TEXT.replace("\ngap = \"2s\"", "\ngap = \"1s\""));
        assert_eq!(edited(TEXT, "\ngap = \"2s\"", "\ngap = \"1s\"").unwrap(), found);
    }

    #[test]
    fn a_field_that_is_commented_out_is_named_with_its_mark() {
        assert_eq!(edited(TEXT, "#gap = \"2s\"", "on = 1").unwrap(), TEXT.replacen("#gap = \"2s\"", "on = 1", 1));
    }

    #[test]
    fn what_is_not_there_is_refused_and_of_several_the_first_is_changed() {
        assert!(edited(TEXT, "gap = \"9s\"", "").is_err());
        assert_eq!(edited(TEXT, "gap = ", "x = ").unwrap(), TEXT.replace("\ngap = ", "\nx = "));
    }
}
