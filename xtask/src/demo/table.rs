//! Two columns at the end.

/// Rows in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(&'static str, String)>);

impl Table {
    pub(super) fn row(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }

    pub(super) fn print(&self) {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        println!("\nWhat happened");
        for (name, value) in &self.0 {
            println!("  {name:<width$}  {value}");
        }
    }
}
