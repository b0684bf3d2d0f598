//! The contract of `wit/v0.1` as Rust types, one module for each world; `types` and `log` are shared by all.
#![expect(unreachable_pub, reason = "generated code")]

/// When to change the key.
pub mod rotation_policy {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "rotation-policy",
        imports: { default: trappable },
        additional_derives: [serde::Serialize, serde::Deserialize, PartialEq, Clone],
    });
}

/// How a key travels unseen.
pub mod key_disguise {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "key-disguise",
        imports: { default: trappable },
        additional_derives: [serde::Serialize, serde::Deserialize, PartialEq, Clone],
        with: {
            "farseal:plugin/types@0.1.0": super::rotation_policy::farseal::plugin::types,
            "farseal:plugin/log@0.1.0": super::rotation_policy::farseal::plugin::log,
        },
    });
}

/// How the copy is opened after a takeover.
pub mod recovery_strategy {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "recovery-strategy",
        imports: { default: trappable },
        additional_derives: [serde::Serialize, serde::Deserialize, PartialEq, Clone],
        with: {
            "farseal:plugin/types@0.1.0": super::rotation_policy::farseal::plugin::types,
            "farseal:plugin/log@0.1.0": super::rotation_policy::farseal::plugin::log,
        },
    });
}

/// What seals the blocks, by plan.
pub mod cipher_plan {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "cipher-plan",
        imports: { default: trappable },
        additional_derives: [serde::Serialize, serde::Deserialize, PartialEq, Clone],
        with: {
            "farseal:plugin/types@0.1.0": super::rotation_policy::farseal::plugin::types,
            "farseal:plugin/log@0.1.0": super::rotation_policy::farseal::plugin::log,
        },
    });
}

/// What seals the blocks, with an algorithm of its own.
pub mod cipher_raw {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "cipher-raw",
        imports: { default: trappable },
        additional_derives: [serde::Serialize, serde::Deserialize, PartialEq, Clone],
        with: {
            "farseal:plugin/types@0.1.0": super::rotation_policy::farseal::plugin::types,
            "farseal:plugin/log@0.1.0": super::rotation_policy::farseal::plugin::log,
        },
    });
}
