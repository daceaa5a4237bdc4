//! "Did you mean": the known name nearest to a mistyped one.

/// The candidate nearest to `name`, if it is near enough that a slip of the keyboard is likely:
/// one edit for short names, up to three for long ones. An edit is a character put in, left out
/// or changed, or two neighbours swapped; letter case costs nothing.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names are 63 characters at most; longer ones are not worth the time.
    if name.len() > 80 {
        return None;
    }
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.to_lowercase().chars().collect();
            (distance(&name, &letters), candidate)
        })
        .filter(|(edits, candidate)| *edits <= allowed && *edits < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean 'views'?` or nothing: the tail of a message about an unknown name.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates)
        .map_or_else(String::new, |candidate| format!("; did you mean '{candidate}'?"))
}

/// Optimal string alignment distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let fields = ["id", "name", "views", "created_at", "category"];
        for (typed, meant) in [
            ("viws", Some("views")),
            ("Views", Some("views")),
            ("veiws", Some("views")),
            ("createdat", Some("created_at")),
            ("catgeory", Some("category")),
            ("nam", Some("name")),
            ("xx", None),
            ("password", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, fields), meant, "{typed}");
        }
    }
}
