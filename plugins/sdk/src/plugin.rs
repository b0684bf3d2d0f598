//! What every plugin tells about itself, whatever its kind: the `meta` interface.

use crate::bindings::farseal::plugin::types::{Diagnostic, PluginError};
use crate::settings::Settings;

/// What every kind has in common. Each kind's own trait comes on top.
pub trait Plugin: 'static {
    /// Written as `farseal_sdk::about!("One sentence for the operator.")`.
    const ABOUT: About;
    /// Version of the state this plugin keeps; 0 when it keeps none.
    const STATE_SCHEMA: u32 = 0;
    /// Names of `extension`s that it understands; the host sends no others.
    const UNDERSTANDS: &'static [&'static str] = &[];
    /// Declared with [`settings!`](crate::settings!), or [`NoSettings`](crate::settings::NoSettings).
    type Settings: Settings;

    /// What is wrong beyond one setting alone; made with [`wrong`](crate::settings::wrong).
    fn check(_settings: &Self::Settings) -> Vec<Diagnostic> {
        Vec::new()
    }
}

/// Name, version and purpose, made by [`about!`](crate::about!).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The Cargo package: `plugin-` followed by the plugin's name.
    pub package: &'static str,
    /// As semantic versioning writes it.
    pub version: &'static str,
    /// One sentence for the operator.
    pub summary: &'static str,
}

impl About {
    /// The plugin's name: the package's name without its `plugin-`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.package.strip_prefix("plugin-").unwrap_or(self.package)
    }
}

/// An [`About`] with the name and version of the crate it is written in.
#[macro_export]
macro_rules! about {
    ($summary:expr) => {
        $crate::About { package: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"), summary: $summary }
    };
}

/// All complaints about `config`; the settings when there are none.
pub(crate) fn checked<P: Plugin>(config: &str) -> Result<P::Settings, Vec<Diagnostic>> {
    let settings = P::Settings::parse(config)?;
    let wrong = P::check(&settings);
    if wrong.is_empty() { Ok(settings) } else { Err(wrong) }
}

/// The settings of a call, or the error that ends it.
pub(crate) fn settings<P: Plugin>(config: &str) -> Result<P::Settings, PluginError> {
    checked::<P>(config).map_err(PluginError::InvalidConfig)
}

/// `meta` for one kind.
macro_rules! export_meta {
    ($kind:path, $exported:ident) => {
        impl<P: $kind> crate::bindings::exports::farseal::plugin::meta::Guest for $exported<P> {
            fn describe() -> crate::bindings::exports::farseal::plugin::meta::About {
                crate::bindings::exports::farseal::plugin::meta::About {
                    name: P::ABOUT.name().to_owned(),
                    version: P::ABOUT.version.to_owned(),
                    summary: P::ABOUT.summary.to_owned(),
                    state_schema: P::STATE_SCHEMA,
                    config_schema: <P::Settings as crate::settings::Settings>::schema(),
                    understands: P::UNDERSTANDS.iter().map(|name| (*name).to_owned()).collect(),
                }
            }

            fn check_config(config: String) -> Vec<crate::Diagnostic> {
                crate::log::catch_panics();
                crate::plugin::checked::<P>(&config).err().unwrap_or_default()
            }
        }
    };
}
pub(crate) use export_meta;

/// Exports these interfaces of `farseal:plugin`, implemented by the type.
#[doc(hidden)]
#[macro_export]
macro_rules! export_interfaces {
    ($component:ident: $($interface:ident),+) => {
        $( $crate::export_interface!($component $interface); )+
    };
}

/// wit-bindgen makes a macro for each interface; their names follow from the interface and the version.
#[doc(hidden)]
#[macro_export]
macro_rules! export_interface {
    ($c:ident meta) => {
        $crate::bindings::exports::farseal::plugin::meta::__export_farseal_plugin_meta_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::meta
        );
    };
    ($c:ident rotation) => {
        $crate::bindings::exports::farseal::plugin::rotation::__export_farseal_plugin_rotation_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::rotation
        );
    };
    ($c:ident disguise) => {
        $crate::bindings::exports::farseal::plugin::disguise::__export_farseal_plugin_disguise_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::disguise
        );
    };
    ($c:ident recovery) => {
        $crate::bindings::exports::farseal::plugin::recovery::__export_farseal_plugin_recovery_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::recovery
        );
    };
    ($c:ident cipher) => {
        $crate::bindings::exports::farseal::plugin::cipher::__export_farseal_plugin_cipher_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::cipher
        );
    };
    ($c:ident raw_cipher) => {
        $crate::bindings::exports::farseal::plugin::raw_cipher::__export_farseal_plugin_raw_cipher_0_1_0_cabi!(
            $c with_types_in $crate::bindings::exports::farseal::plugin::raw_cipher
        );
    };
}
