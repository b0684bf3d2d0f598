//! Programs that tests drive but Cargo does not bring: real NBD clients, a file system, a load generator.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::run;

/// A program, the Debian package with it, and what cannot be tested without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    /// Words with which it starts and ends at once.
    probe: &'static [&'static str],
    pub(crate) package: &'static str,
    pub(crate) tests: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool { program: "nbdkit", probe: &["--version"], package: "nbdkit", tests: "comparison with another NBD server" },
    Tool { program: "nbdinfo", probe: &["--version"], package: "libnbd-bin", tests: "libnbd as a client" },
    Tool {
        // The system's own: Debian packages reach no other.
        program: "/usr/bin/python3",
        probe: &["-c", "import nbd"],
        package: "python3-libnbd",
        tests: "scripted NBD requests",
    },
    Tool { program: "qemu-img", probe: &["--version"], package: "qemu-utils", tests: "QEMU as a client" },
    Tool { program: "fio", probe: &["--version"], package: "fio", tests: "load" },
    Tool { program: "mkfs.ext4", probe: &["-V"], package: "e2fsprogs", tests: "a file system on a volume" },
    Tool {
        program: "tcpdump",
        probe: &["--version"],
        package: "tcpdump",
        tests: "what the line shows, from the kernel",
    },
];

impl Tool {
    fn is_there(self) -> bool {
        let mut command = Command::new(self.program);
        command.args(self.probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

/// Installs what is missing, where that is possible, and says so. Returns what is missing still.
pub(crate) fn install() -> Vec<Tool> {
    install_for(&TOOLS.map(|tool| tool.program))
}

/// The same for some of the programs.
pub(crate) fn install_for(programs: &[&str]) -> Vec<Tool> {
    let missing = missing(programs);
    if missing.is_empty() {
        return missing;
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if !Path::new("/usr/bin/apt-get").exists() || !is_root() {
        println!("missing: {}; apt-get and root are needed to install them", packages.join(", "));
        return missing;
    }
    println!("installing {}", packages.join(", "));
    let apt = |words: &[&str]| {
        run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-y"]).args(words))
    };
    // One at a time after the list: one package that cannot be had does not keep the others away.
    if let Err(error) = apt(&["update"]) {
        println!("{error:#}");
    }
    for package in packages {
        match apt(&["install", "--no-install-recommends", package]) {
            Ok(()) => println!("installed {package}"),
            Err(error) => println!("{package} could not be installed: {error:#}"),
        }
    }
    self::missing(programs)
}

fn missing(programs: &[&str]) -> Vec<Tool> {
    TOOLS.into_iter().filter(|tool| programs.contains(&tool.program) && !tool.is_there()).collect()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
