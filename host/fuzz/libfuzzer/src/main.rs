//! One target under libFuzzer, the one that `FARSEAL_FUZZ` names; the targets themselves are in `farseal-fuzz`.

#![no_main]

use std::sync::OnceLock;

use farseal_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FARSEAL_FUZZ").unwrap_or_default();
        Target::named(&name).expect("FARSEAL_FUZZ names a target")
    });
    (target.run)(data);
});
