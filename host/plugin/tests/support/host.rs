//! The repository's root and one host for a whole test program.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use farseal_plugin::conform::CodeInMemory;
use farseal_plugin::{CodeCache, HostOptions, PluginHost};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// One host for a whole test program, which compiles each component once; where `FARSEAL_COMPILED` names a folder, once for
/// all that do so.
pub(crate) fn host() -> &'static PluginHost {
    static HOST: OnceLock<PluginHost> = OnceLock::new();
    HOST.get_or_init(|| {
        let code_cache: Arc<dyn CodeCache> = match std::env::var_os("FARSEAL_COMPILED") {
            Some(place) => Arc::new(CodeInFolder(place.into())),
            None => Arc::new(CodeInMemory::default()),
        };
        PluginHost::new(HostOptions { code_cache: Some(code_cache), ..HostOptions::uncached() }).unwrap()
    })
}

/// Native code in a folder below the target folder. There is no secret in its MAC: whoever can write there can write what Cargo
/// runs next.
struct CodeInFolder(PathBuf);

impl CodeCache for CodeInFolder {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(key)).ok()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        // Several tests of one process compile the same component at the same time.
        static PARTS: AtomicU64 = AtomicU64::new(0);
        let part = PARTS.fetch_add(1, Ordering::Relaxed);
        let beside = self.0.join(format!("{key}.part{}-{part}", std::process::id()));
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, self.0.join(key)).unwrap();
    }
}
