//! What is asked of `new-plugin`, from the words of the command line.

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace::Language;

/// Longer names make unreadable tables.
const LONGEST_NAME: usize = 40;
const USE: &str =
    "use: cargo xtask new-plugin rotation|recovery|disguise|cipher NAME [--lang rust|js|python] [--bare] [--dir DIR]";

/// A plugin to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) language: Language,
    /// Without the SDK.
    pub(super) bare: bool,
    /// Instead of `plugins`.
    pub(super) dir: Option<String>,
}

impl Request {
    pub(super) fn parse(words: &[String]) -> Result<Self> {
        let [kind, name, options @ ..] = words else { bail!(USE) };
        let (kind, name) = (kind.clone(), name.clone());
        let mut request = Self { kind, name, language: Language::Rust, bare: false, dir: None };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut value = || options.next().with_context(|| format!("{option} needs a value; {USE}"));
            match option.as_str() {
                "--bare" => request.bare = true,
                "--dir" => request.dir = Some(value()?.clone()),
                "--lang" => request.language = language(value()?)?,
                _ => bail!("new-plugin does not know {option}; {USE}"),
            }
        }
        check_name(&request.name)?;
        let interpreted = request.language != Language::Rust;
        ensure!(
            !(interpreted && request.bare),
            "--bare is for Rust: what is written in {} needs its SDK",
            request.language
        );
        ensure!(
            !(interpreted && request.dir.is_some()),
            "a plugin in {} lies in plugins/, from where it imports its SDK: leave --dir out",
            request.language,
        );
        Ok(request)
    }
}

fn language(word: &str) -> Result<Language> {
    let all = [Language::Rust, Language::JavaScript, Language::Python];
    all.into_iter().find(|language| language.name() == word).with_context(|| {
        format!("there is no language {word}; there are: rust, js, python (js and python for rotation and recovery)")
    })
}

/// What a plugin may be called: as `about.name` in the contract.
fn check_name(name: &str) -> Result<()> {
    let words = || name.split('-');
    let good = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    ensure!(
        name.len() <= LONGEST_NAME && name.starts_with(|c: char| c.is_ascii_lowercase()) && words().all(good),
        "{name:?} is no name for a plugin: lower-case words joined by hyphens, at most {LONGEST_NAME} characters, \
         for example quarter-end",
    );
    ensure!(name != "sdk", "sdk is the folder of what plugins import; choose another name");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn parse(words: &str) -> Result<Request> {
        Request::parse(&words.split(' ').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_lower_case_words_joined_by_hyphens() {
        for good in ["quarter-end", "a", "sha3-based"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a--b", "Quarter", "quarter_end", "3d", "../up", "sdk", "a b", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_before_anything_is() {
        assert_eq!(parse("recovery late --lang python").unwrap().language, Language::Python);
        assert!(parse("cipher late --bare --dir ..").unwrap().bare);
        for wrong in
            ["rotation", "rotation a --fast", "rotation a --lang go", "rotation a --lang js --bare", "rotation a --dir"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
