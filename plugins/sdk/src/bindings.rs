//! The Rust side of `wit/v0.1` as wit-bindgen writes it.
//!
//! All interfaces are generated from one world, so that the kinds share their types; each `export_*!` macro exports
//! only its own kind's interfaces. Which world the component is held to is decided when it is built, by the kind in
//! its `Cargo.toml`, and imports that a component does not call are not in it.

wit_bindgen::generate!({
    inline: "
        package farseal:sdk;
        world any-kind {
            import farseal:plugin/log@0.1.0;
            import farseal:plugin/raw@0.1.0;
            export farseal:plugin/meta@0.1.0;
            export farseal:plugin/rotation@0.1.0;
            export farseal:plugin/disguise@0.1.0;
            export farseal:plugin/recovery@0.1.0;
            export farseal:plugin/cipher@0.1.0;
            export farseal:plugin/raw-cipher@0.1.0;
        }
    ",
    path: "../../wit/v0.1",
    generate_all,
    pub_export_macro: true,
    additional_derives: [PartialEq],
});
