//! Lines for the operator: to the host's `log` in a component, to standard error in a native test.
//!
//! The host takes at most 64 lines and 8 KiB a call, and ends a call that goes over as a fault.

pub use crate::bindings::farseal::plugin::log::Level;

/// One line. The macros [`info!`](crate::info!) and its sisters are shorter.
#[cfg(target_arch = "wasm32")]
pub fn emit(level: Level, message: &str, fields: &[(&str, String)]) {
    use crate::bindings::farseal::plugin::log::{Field, emit};
    let fields: Vec<Field> =
        fields.iter().map(|(key, value)| Field { key: (*key).to_owned(), value: value.clone() }).collect();
    emit(level, message, &fields);
}

/// One line. The macros [`info!`](crate::info!) and its sisters are shorter.
#[cfg(not(target_arch = "wasm32"))]
pub fn emit(level: Level, message: &str, fields: &[(&str, String)]) {
    let fields: String = fields.iter().map(|(key, value)| format!(" {key}={value:?}")).collect();
    eprintln!("{level:?} {message}{fields}");
}

/// Called first in every exported function but `describe`: from here on a panic is logged, with its place, before
/// it becomes a trap. Without this the host sees `unreachable` and nothing else.
#[cfg(target_arch = "wasm32")]
pub fn catch_panics() {
    static SET: std::sync::Once = std::sync::Once::new();
    SET.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let payload = info.payload();
            let message = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| String::from("a panic without text"));
            let hint = missing_here(&message);
            let message = message + hint;
            let place = info.location().map_or_else(String::new, ToString::to_string);
            emit(Level::Error, &message, &[("panic", place)]);
        }));
    });
}

/// What the standard library says where it lacks something names its own file, and not what a plugin has instead.
#[cfg(any(target_arch = "wasm32", test))]
fn missing_here(message: &str) -> &'static str {
    if message.starts_with("time not implemented") {
        ": a plugin has no clock; every call is told the time, as `now` of its context"
    } else if message.contains("operation not supported on this platform") {
        ": a plugin has no files, no network and no threads"
    } else {
        ""
    }
}

/// Natively a panic prints itself.
#[cfg(not(target_arch = "wasm32"))]
pub const fn catch_panics() {}

/// `log!(Level::Info, "text {}", args; "key" = value, ..)`: a line with any fields that print.
#[macro_export]
macro_rules! log {
    ($level:expr, $format:literal $(, $arg:expr)* $(; $($key:literal = $value:expr),+ $(,)?)?) => {
        $crate::log::emit($level, &format!($format $(, $arg)*), &[$($(($key, $value.to_string())),+)?])
    };
}

/// A line at level debug, written as for [`log!`](crate::log!).
#[macro_export]
macro_rules! debug { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Debug, $($rest)+) }; }

/// A line at level info, written as for [`log!`](crate::log!).
#[macro_export]
macro_rules! info { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Info, $($rest)+) }; }

/// A line at level warn, written as for [`log!`](crate::log!).
#[macro_export]
macro_rules! warn { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Warn, $($rest)+) }; }

/// A line at level error, written as for [`log!`](crate::log!).
#[macro_export]
macro_rules! error { ($($rest:tt)+) => { $crate::log!($crate::log::Level::Error, $($rest)+) }; }

#[cfg(test)]
mod tests {
    use super::missing_here;

    #[test]
    fn what_a_plugin_lacks_is_said_with_what_it_has_instead() {
        // As the standard library for wasm32-unknown-unknown says them.
        assert!(missing_here("time not implemented on this platform").contains("`now`"));
        let spawn = "failed to spawn thread: Error { kind: Unsupported, message: \"operation not supported on this platform\" }";
        assert!(missing_here(spawn).contains("no threads"));
        assert_eq!(missing_here("index out of bounds"), "");
    }
}
