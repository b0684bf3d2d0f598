//! Guests from source to core module: the wasm32 target, the flags that make the bytes reproducible, Cargo.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Plugin, Workspace, quiet_if, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// Adds the compilation target when the toolchain lacks it.
pub(crate) fn ensure_target(workspace: &Workspace) -> Result<()> {
    let output = Command::new("rustc").current_dir(&workspace.root).args(["--print", "sysroot"]).output();
    let output = output.context("rustc cannot be started; install Rust with rustup")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Ok(());
    }
    println!("the toolchain has no {TARGET}; running: rustup target add {TARGET}");
    let added = run(Command::new("rustup").current_dir(&workspace.root).args(["target", "add", TARGET]));
    added.with_context(|| format!("plugins are built for {TARGET}, which could not be installed"))
}

/// Builds one plugin and returns its core module. Cargo does nothing when nothing has changed.
pub(crate) fn core_module(workspace: &Workspace, plugin: &Plugin) -> Result<Vec<u8>> {
    let package = format!("plugin-{}", plugin.name);
    // As cdylib only: with an rlib beside it Cargo leaves out link-time optimisation.
    let mut cargo = workspace.cargo();
    cargo.args(["rustc", "--locked", "--package", &package, "--lib", "--crate-type", "cdylib"]);
    cargo.args(["--target", TARGET, "--profile", "plugin"]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?).env_remove("RUSTFLAGS");
    let file = format!("{}.wasm", package.replace('-', "_"));
    let path = workspace.target.join(TARGET).join("plugin").join(file);
    if !path.exists() {
        eprintln!("building {} for {TARGET}", plugin.name);
    }
    cargo.args(quiet_if(fs::exists(workspace.target.join(TARGET)).unwrap_or_default()));
    workspace.say_who_is_waited_for("plugin");
    run(&mut cargo).with_context(|| format!("{package} does not build for {TARGET}"))?;
    fs::read(&path).with_context(|| format!("cargo built no {}", path.display()))
}

/// Paths of this machine are replaced, so that the same source gives the same bytes everywhere. SIMD is on for all:
/// every host runs it, and one set of flags builds the dependencies once.
fn flags(workspace: &Workspace) -> Result<String> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let paths = [(workspace.root.display(), "/src"), (cargo_home.display(), "/cargo")];
    let mut flags = vec![String::from("-Ctarget-feature=+simd128")];
    for (from, to) in paths {
        let from = from.to_string();
        if from.contains('\u{1f}') {
            bail!("the path {from} holds a control character");
        }
        flags.push(format!("--remap-path-prefix={from}={to}"));
    }
    Ok(flags.join("\u{1f}"))
}
