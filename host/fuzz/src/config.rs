//! Target: a configuration file.

use std::path::Path;

use farseal::config::Config;

/// No text panics; what is refused says where; and where a text is taken, one more field that nobody knows is not.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new("farseal.toml");
    match Config::parse(file, text) {
        Err(refused) => assert!(refused.to_string().contains("farseal.toml"), "an error names the file: {refused}"),
        Ok(_) => {
            let more = format!("{text}\nno-such-field = 1\n");
            assert!(Config::parse(file, &more).is_err(), "a field that nobody knows is passed over in:\n{more}");
        }
    }
}
