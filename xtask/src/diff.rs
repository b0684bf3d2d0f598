//! Line by line, what two texts have in common and where they differ.

use std::fmt::Write as _;

/// Unchanged lines shown around a change.
const AROUND: usize = 3;

enum Line<'a> {
    Same(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The changes with a few lines around them; empty when there are none.
pub(crate) fn diff(old: &str, new: &str) -> String {
    let lines = lines(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))).map(|(at, _)| at).collect();
    let near = |at: usize| changed.iter().any(|change| at.abs_diff(*change) <= AROUND);
    let mut shown = String::new();
    let mut skipped = false;
    for (at, line) in lines.iter().enumerate() {
        if !near(at) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) {
            shown.push_str("    ...\n");
        }
        let (sign, text) = match line {
            Line::Same(text) => (' ', text),
            Line::Old(text) => ('-', text),
            Line::New(text) => ('+', text),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "  {sign} {text}");
    }
    shown
}

/// The first lines of a text, and how many more it has.
pub(crate) fn first_lines(text: &str, most: usize) -> (&str, usize) {
    let Some((end, _)) = text.match_indices('\n').nth(most.saturating_sub(1)) else { return (text, 0) };
    let (first, rest) = text.split_at(end + 1);
    (first, rest.lines().count())
}

/// By the longest common subsequence.
fn lines<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    // common[i][j]: how many lines old[i..] and new[j..] have in common.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_diff() {
        assert_eq!(diff("a\nb\n", "a\nb\n"), "");
    }

    #[test]
    fn a_change_is_shown_with_what_is_around_it() {
        let old = "1\n2\n3\n4\n5\n6\n7\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n";
        assert_eq!(diff(old, new), "    ...\n    2\n    3\n    4\n  - 5\n  + five\n    6\n    7\n");
    }

    #[test]
    fn a_long_text_is_cut_after_whole_lines() {
        assert_eq!(first_lines("1\n2\n3\n4\n", 2), ("1\n2\n", 2));
        assert_eq!(first_lines("1\n2\n", 2), ("1\n2\n", 0));
        assert_eq!(first_lines("", 2), ("", 0));
    }

    #[test]
    fn a_new_text_is_all_new() {
        assert_eq!(diff("", "a\n"), "  + a\n");
    }
}
