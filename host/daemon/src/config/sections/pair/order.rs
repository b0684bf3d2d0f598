//! Must a pair keep the order of writes? What goes with keeping none, and what does not.

use farseal_core::primary::Mode;

use super::super::super::problem::ConfigError;
use super::super::super::read::Table;

/// Which pair of which group keeps an order.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(String, String, bool)>);

/// `ordered-writes`, which is true unless it says otherwise.
pub(super) fn ordered(
    table: &mut Table<'_, '_>,
    orders: &mut Orders,
    pair: &str,
    group: &str,
    mode: Mode,
) -> Result<bool, ConfigError> {
    let field = table.take("ordered-writes");
    let ordered = field.as_ref().map(|field| field.boolean()).transpose()?.unwrap_or(true);
    if let (false, Some(field)) = (ordered, &field)
        && mode != Mode::Async
    {
        let wrong =
            format!("mode {mode} waits for the remote, which without an order is brought up to date now and then");
        return Err(field.wrong(&wrong, "false in mode \"async\"", "remove it, or write mode = \"async\""));
    }
    let other = orders.0.iter().find(|(_, in_group, orders)| in_group == group && !(*orders && ordered));
    if let Some((other, ..)) = other {
        let without = if ordered { other.as_str() } else { pair };
        let allowed = format!("a group for pair {without} alone: it keeps no order, so no cut of a group can hold it");
        let fix = format!("give {without} a group of its own, or ordered-writes = true");
        return Err(match &field {
            Some(field) => field.wrong(&format!("pairs {other} and {pair} are both in group {group}"), &allowed, &fix),
            None => table.missing("ordered-writes", &allowed, &fix),
        });
    }
    orders.0.push((pair.to_owned(), group.to_owned(), ordered));
    Ok(ordered)
}
