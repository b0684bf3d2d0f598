//! The repository's commands: `cargo xtask <command>`. Each is a file of its name.

mod bench;
mod build;
mod chaos;
mod ci;
mod compiled;
mod component;
mod conform;
mod demo;
mod diff;
mod disguise_game;
mod fuzz;
mod hex;
mod interpreted;
mod mistake;
mod nbd_client;
mod new_plugin;
mod plugins;
mod python;
mod sim;
mod site;
mod snapshot;
mod soak;
mod test;
mod tidy;
mod toolchain;
mod tools;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

/// A command: its name, what may follow, what it does.
struct Command {
    name: &'static str,
    usage: &'static str,
    purpose: &'static str,
    run: fn(&Workspace, &[String]) -> anyhow::Result<()>,
}

const COMMANDS: [Command; 14] = [
    Command {
        name: "demo",
        usage: "[--keep]",
        purpose: "copies a real file system between two sites, loses one, and reads it back",
        run: demo::run,
    },
    Command {
        name: "bench",
        usage: "[--quick] [--only PART].. [--json FILE]",
        purpose: "measures ciphers, plugins, NBD and takeover against other programs, and against the goals",
        run: bench::run,
    },
    Command {
        name: "plugins",
        usage: "[NAME..] [--check]",
        purpose: "builds plugins into target/plugins; --check: fails if what is there is not what would be built",
        run: plugins::run,
    },
    Command {
        name: "new-plugin",
        usage: "rotation|recovery|disguise|cipher NAME [--lang rust|js|python] [--bare] [--dir DIR]",
        purpose: "writes a plugin that works, with a scenario, to start from; --bare: Rust without the SDK",
        run: new_plugin::run,
    },
    Command {
        name: "snapshot",
        usage: "[NAME|FILE.wasm].. [--scenario GLOB] [--check|--review|--accept]",
        purpose: "plays the scenarios to plugins and compares the transcripts with the accepted ones",
        run: snapshot::run,
    },
    Command {
        name: "conform",
        usage: "NAME|FILE.wasm.. [--settings JSON] [--stories N] [--fuel N] [--rule C-N] [--seed N] [--json FILE] [--save FOLDER]",
        purpose: "tries the contract's rules on a plugin with stories made by chance",
        run: conform::run,
    },
    Command {
        name: "chaos",
        usage: "[--groups [--nodes N]] [--minutes N | --kills N --power-cuts N --full-disks N] [--seed N] [--farseal FILE]",
        purpose: "kills two sites, cuts their power and troubles their link under load, and judges every image; --groups: \
                  sites of several nodes, and writes that depend on each other across them",
        run: chaos::run,
    },
    Command {
        name: "sim",
        usage: "[--seconds S] [--seeds N] [--seed N] [--first N] [--replay FILE [--step]]",
        purpose: "runs both sites in a world of one seed after the other; a minute of them unless told",
        run: sim::run,
    },
    Command {
        name: "soak",
        usage: "copy|split|swap|keys|database|records [--mib N] [--minutes N] [--farseal FILE] ..",
        purpose: "what takes long on real disks: an initial copy, a split, changes of sides, a key a second, a database that is \
                  lost, a million records of which a search opens some; compared at the end",
        run: soak::run,
    },
    Command {
        name: "disguise-game",
        usage: "[--disguise NAME] [--how in-band|pause] [--workload NAMES] [--minutes N | --events N] [--short] [--out FOLDER] ..",
        purpose: "captures two sites' line, tosses coins for changes of key, and says how well they are told from nothing",
        run: disguise_game::run,
    },
    Command {
        name: "fuzz",
        usage: "[TARGET] [--seconds N] [--seed N] [--input FILE]",
        purpose: "feeds mutated inputs to a parser or a machine, or to each in turn for a minute",
        run: fuzz::run,
    },
    Command { name: "tidy", usage: "", purpose: "checks the repository's structure", run: tidy::run },
    Command {
        name: "test",
        usage: "",
        purpose: "installs what tests need, builds plugins, runs every test, a minute of chaos and the disguise game's controls",
        run: test::run,
    },
    Command { name: "ci", usage: "", purpose: "format, lints, tidy, test: everything that must hold", run: ci::run },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let is_asked_how = |word: &String| ["help", "--help", "-h"].contains(&word.as_str());
    let Some(command) = words.first().and_then(|name| COMMANDS.iter().find(|command| command.name == name)) else {
        print_usage(&COMMANDS);
        return if words.first().is_none_or(is_asked_how) { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    if words.iter().skip(1).any(|word| word == "--help" || word == "-h") {
        print_usage(std::slice::from_ref(command));
        return ExitCode::SUCCESS;
    }
    let result = Workspace::find().and_then(|workspace| (command.run)(&workspace, &words[1..]));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_usage(commands: &[Command]) {
    println!("cargo xtask <command>\n");
    for Command { name, usage, purpose, .. } in commands {
        println!("  {name} {usage}\n      {purpose}");
    }
}
