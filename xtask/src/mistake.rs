//! What an author is told when a plugin in JavaScript or Python does not build: the sentence that names the mistake, and its place in
//! the author's own file, out of all that the tools print.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Language;

/// Lines that are shown where nothing better is found.
const LAST: usize = 20;

/// After a module that Python does not find.
const NOT_THERE: &str = "\n(a component has the standard library, farseal and what lies in the plugin's folder; what pip installs is not put in)";

/// The mistake in what a tool printed. `folder` is the plugin's, as it is to be shown.
pub(crate) fn told(language: Language, said: &str, folder: &str) -> String {
    let found = match language {
        Language::JavaScript => javascript(said, folder),
        Language::Python => python(said, folder),
        Language::Rust => None,
    };
    found.unwrap_or_else(|| {
        let lines: Vec<&str> = said.trim().lines().collect();
        lines.get(lines.len().saturating_sub(LAST)..).unwrap_or_default().join("\n")
    })
}

/// Whether a file of JavaScript can be read at all: componentize-js counts its errors, and says neither what nor where.
pub(crate) fn check_syntax(file: &Path, shown: &str) -> Result<()> {
    let source = File::open(file).with_context(|| format!("{shown} cannot be read"))?;
    let mut node = Command::new("node");
    // From standard input, as a file would be a module only if a manifest says so.
    node.args(["--input-type=module", "--check"]).stdin(source).stdout(Stdio::null());
    let output = node.output().context("node cannot be started (Node.js 20 or later is needed)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).replace("[stdin]", shown);
        bail!("{}", up_to_frames(&said).join("\n"));
    }
    Ok(())
}

/// What stands before the calls that led to it.
fn up_to_frames(said: &str) -> Vec<&str> {
    said.lines().take_while(|line| !line.starts_with("    at ")).filter(|line| !line.is_empty()).collect()
}

fn javascript(said: &str, folder: &str) -> Option<String> {
    let (_, from) = said.split_once("\nError: ")?;
    let lines = up_to_frames(from);
    let interface = lines.iter().find_map(|line| line.split_once("does not export a \"")?.1.split_once('"'));
    if let Some((interface, _)) = interface {
        return Some(format!(
            "{folder}/plugin.js does not export {interface}: end it with `export const {interface} = plugin.{interface};`"
        ));
    }
    let of_the_tool = ["Failed to initialize component", "Exception while evaluating", "Additionally, some promises"];
    let telling =
        |line: &&str| !of_the_tool.iter().any(|words| line.starts_with(words)) && !line.starts_with("Promise rejected");
    let told: Vec<&str> = lines.into_iter().filter(telling).collect();
    (!told.is_empty()).then(|| told.join("\n"))
}

fn python(said: &str, folder: &str) -> Option<String> {
    let (_, from) = said.split_once("AssertionError: ")?;
    let told = ["\nCaused by:", "\nStack backtrace:"].iter().fold(from, |text, end| match text.split_once(end) {
        Some((before, _)) => before,
        None => text,
    });
    // Where the tool mounts what it is given.
    let told = told.replace("\"/0/", &format!("\"{folder}/")).replace("\"/1/", "\"plugins/sdk/python/");
    let told = own_frames(told.trim_end().trim_start_matches('\n'));
    let lacks = told.lines().last().is_some_and(|line| line.starts_with("ModuleNotFoundError: "));
    Some(format!("\n{told}{}", if lacks { NOT_THERE } else { "" }))
}

/// A traceback without the calls within the SDK, where there are the author's own.
fn own_frames(told: &str) -> String {
    let mut kept = Vec::new();
    let mut is_ours = false;
    for line in told.lines() {
        if line.starts_with("  File \"") || !line.starts_with(' ') {
            is_ours = line.starts_with("  File \"plugins/sdk/python/");
        }
        kept.extend((!is_ours).then_some(line));
    }
    let has_own = kept.iter().any(|line| line.starts_with("  File \""));
    if has_own { kept.join("\n") } else { told.to_owned() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// As the tools printed it, but for what is cut.
    const THROWN: &str = "file:///t/node_modules/componentize.js:365\n    throw new Error(err);\n          ^\n\nError: Failed to \
         initialize component (wizer (/t/wizer)):\nException while evaluating top-level script\nplugins/late/plugin.js:6:1 \
         ReferenceError: undefinedThing is not defined\nAdditionally, some promises were rejected, but the rejection never \
         handled:\nPromise rejected but never handled: undefinedThing is not defined\nStack:\n  @plugins/late/plugin.js:6:1\n    \
         at componentize (file:///t/componentize.js:365:11)\n\nNode.js v20.20.2\n";
    const NOT_EXPORTED: &str = "throw new Error(msg);\n\nError: Unable to extract expected exports list\nError: \"source.js\" does \
         not export a \"rotation\" interface as expected by the world.\n  Try defining it by its alias:\n  export const rotation \
         = {};\n    at handle (file:///t/componentize.js:616:11)\n";
    const PYTHON: &str = "Traceback (most recent call last):\n  File \"/t/bin/componentize-py\", line 8, in <module>\n    \
         sys.exit(script())\nAssertionError:   File \"/0/plugin.py\", line 13\n    def first(self)\n                   \
         ^\nSyntaxError: expected ':'\n\n\nCaused by:\n    SyntaxError: expected ':' (plugin.py, line 13)\n\nStack backtrace:\n   \
         0: <anyhow::Error>::msg\n   9: cfunction_vectorcall_NOARGS\n";

    #[test]
    fn the_mistake_is_found_in_what_the_tools_print() {
        let told = |language, said| told(language, said, "plugins/late");
        assert_eq!(
            told(Language::JavaScript, THROWN),
            "plugins/late/plugin.js:6:1 ReferenceError: undefinedThing is not defined\nStack:\n  @plugins/late/plugin.js:6:1"
        );
        assert_eq!(
            told(Language::JavaScript, NOT_EXPORTED),
            "plugins/late/plugin.js does not export rotation: end it with `export const rotation = plugin.rotation;`"
        );
        assert_eq!(
            told(Language::Python, PYTHON),
            "\n  File \"plugins/late/plugin.py\", line 13\n    def first(self)\n                   ^\nSyntaxError: expected ':'"
        );
        let within = "AssertionError: Traceback (most recent call last):\n  File \"/1/farseal_component.py\", line 4, in <module>\n    \
             import plugin\n  File \"/0/plugin.py\", line 46, in <module>\n    exported(Late())\n  File \"/1/farseal/rotation.py\", \
             line 2, in exported\n    check()\n    ~~~~^^\nTypeError: Late has no step\n";
        let own = "\nTraceback (most recent call last):\n  File \"plugins/late/plugin.py\", line 46, in <module>\n    \
             exported(Late())\nTypeError: Late has no step";
        assert_eq!(told(Language::Python, within), own);
        let ours = "AssertionError:   File \"/1/farseal/form.py\", line 1\nSyntaxError: no\n";
        assert!(told(Language::Python, ours).contains("plugins/sdk/python/farseal/form.py"), "there is no other");
        let missing = "AssertionError:   File \"/0/plugin.py\", line 1\nModuleNotFoundError: No module named 'requests'\n\nCaused by:\n    x";
        assert!(told(Language::Python, missing).ends_with(&format!("'requests'{NOT_THERE}")));
        assert_eq!(
            told(Language::Python, "pip: no network\n"),
            "pip: no network",
            "what is not known is shown as it came"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_line() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("plugin.js");
        std::fs::write(&file, "import { a } from './a.js';\nconst b = {\n  c: 1\n  d: 2\n};\n").unwrap();
        let Err(error) = check_syntax(&file, "plugins/late/plugin.js") else { panic!("that is no JavaScript") };
        let said = format!("{error:#}");
        // Without Node.js nothing in JavaScript is built.
        let known = said.contains("node cannot be started") || said.starts_with("plugins/late/plugin.js:4\n");
        assert!(known, "{said}");
    }
}
