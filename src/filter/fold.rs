//! Substrings without regard to case: Unicode simple case folding, in time linear in the value.
//!
//! The folding table is made from `regex-syntax`, which carries Unicode's own (`CaseFolding.txt`,
//! status C and S) and is compiled in anyway as a part of `regex`; the standard library knows
//! only full case mappings, which differ from it. A compiled `(?i)` regex would do as well, but
//! takes tens of kilobytes a filter where this takes eight bytes a letter.

use std::fmt;
use std::sync::LazyLock;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// A substring to look for, case folded.
#[derive(Clone)]
pub struct Fold {
    source: Box<str>,
    needle: Box<[u32]>,
    /// Knuth-Morris-Pratt: how much of the needle still fits after a mismatch behind this place.
    fallback: Box<[u32]>,
    /// First bytes of the characters a match can begin with, where those are three or fewer.
    starts: Vec<u8>,
}

impl Fold {
    pub fn new(text: &str) -> Self {
        let needle: Box<[u32]> = text.chars().map(fold).collect();
        let mut fallback = vec![0_u32; needle.len()];
        let mut fits = 0;
        for at in 1..needle.len() {
            while fits > 0 && needle[at] != needle[fits] {
                fits = fallback[fits - 1] as usize;
            }
            fits += usize::from(needle[at] == needle[fits]);
            // A needle is at most a filter long, far below u32.
            fallback[at] = fits as u32;
        }
        let starts = text.chars().next().map_or_else(Vec::new, starts);
        Fold { source: text.into(), needle, fallback: fallback.into(), starts }
    }

    /// Whether `text`, folded, contains the needle, folded.
    pub fn is_in(&self, text: &str) -> bool {
        let mut fits = 0;
        let mut rest = text;
        loop {
            if fits == self.needle.len() {
                return true;
            }
            if fits == 0 {
                let bytes = rest.as_bytes();
                let next = match *self.starts.as_slice() {
                    [a] => memchr::memchr(a, bytes),
                    [a, b] => memchr::memchr2(a, b, bytes),
                    [a, b, c] => memchr::memchr3(a, b, c, bytes),
                    _ => Some(0),
                };
                // First bytes of characters stand only where characters begin.
                match next.and_then(|next| rest.get(next..)) {
                    Some(from) => rest = from,
                    None => return false,
                }
            }
            let mut chars = rest.chars();
            let Some(char) = chars.next() else {
                return false;
            };
            rest = chars.as_str();
            let char = fold(char);
            while fits > 0 && char != self.needle[fits] {
                fits = self.fallback[fits - 1] as usize;
            }
            fits += usize::from(char == self.needle[fits]);
        }
    }

    /// The text that is looked for, [folded](fold).
    pub fn needle(&self) -> &[u32] {
        &self.needle
    }

    /// The text that is looked for, as written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Fold {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fold({:?})", self.source)
    }
}

/// One representative for each set of characters that differ in case only.
pub fn fold(char: char) -> u32 {
    if char.is_ascii() {
        return u32::from(char.to_ascii_lowercase());
    }
    let code = char as usize;
    match TABLE.pages.get(code >> 8) {
        Some(&page) => TABLE.folded[usize::from(page)][code & 0xff].wrapping_add(char as u32),
        None => char as u32,
    }
}

/// Characters that differ from `char` in case only, itself included.
fn orbit(char: char) -> Vec<char> {
    let mut class = ClassUnicode::new([ClassUnicodeRange::new(char, char)]);
    class.case_fold_simple();
    class.iter().flat_map(|range| range.start()..=range.end()).collect()
}

fn starts(char: char) -> Vec<u8> {
    let mut starts: Vec<u8> =
        orbit(char).into_iter().map(|char| char.encode_utf8(&mut [0; 4]).as_bytes()[0]).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Pages of 256 characters; most are the same page of zeros. An entry is added to the character.
struct Table {
    pages: Vec<u8>,
    folded: Vec<[u32; 256]>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { pages: Vec::new(), folded: vec![[0; 256]] };
    for char in ('\0'..='\u{1ffff}').filter(|char| has_case(*char)) {
        // ASCII letters stand for their orbits, so that ASCII needs no table.
        let orbit = orbit(char);
        let small = orbit.iter().find(|other| other.is_ascii_lowercase());
        let Some(&chosen) = small.or(orbit.first()) else { continue };
        if chosen == char {
            continue;
        }
        let page = char as usize >> 8;
        if table.pages.len() <= page {
            table.pages.resize(page + 1, 0);
        }
        if table.pages[page] == 0 {
            table.pages[page] = table.folded.len() as u8;
            table.folded.push([0; 256]);
        }
        let entry = (chosen as u32).wrapping_sub(char as u32);
        table.folded[usize::from(table.pages[page])][char as usize & 0xff] = entry;
    }
    table
});

/// A cheap test that holds for every character with an orbit of two or more.
fn has_case(char: char) -> bool {
    !char.to_lowercase().eq([char]) || !char.to_uppercase().eq([char])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        for (needle, text, found) in [
            ("", "", true),
            ("", "a", true),
            ("a", "", false),
            ("HELLO", "say hello", true),
            ("straße", "STRAẞE", true),
            ("strasse", "straße", false),
            ("σοφος", "ΣΟΦΌΣ", false),
            ("σοφός", "ΣΟΦΌΣ", true),
            ("k", "\u{212a}", true),
            ("S", "ſ", true),
            ("привет", "ПРИВЕТ", true),
            ("i", "İ", false),
            ("\u{10428}", "\u{10400}", true),
            ("aab", "aaab", true),
            ("abab", "abaabab", true),
            ("%", "100%", true),
            ("_", "x", false),
            ("é", "É", true),
        ] {
            assert_eq!(Fold::new(needle).is_in(text), found, "{needle:?} in {text:?}");
        }
    }

    #[test]
    fn the_table_holds_every_orbit() {
        for char in '\0'..=char::MAX {
            let orbit = orbit(char);
            assert!(orbit.len() == 1 || has_case(char), "{char:?}");
            assert!(orbit.iter().all(|other| fold(*other) == fold(char)), "{char:?}");
            assert!(orbit.iter().any(|other| *other as u32 == fold(char)), "{char:?}");
        }
        assert!(TABLE.folded.len() < 256);
    }

    #[test]
    fn agrees_with_regex() {
        let letters: Vec<char> = "aAbBkK\u{212a}sSſßẞéÉσςΣ".chars().collect();
        let mut seed = 11_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for _ in 0..3_000 {
            let needle: String = (0..next(4)).map(|_| letters[next(letters.len())]).collect();
            let regex = regex::RegexBuilder::new(&regex::escape(&needle))
                .case_insensitive(true)
                .build()
                .expect("an escaped text");
            for _ in 0..10 {
                let text: String = (0..next(8)).map(|_| letters[next(letters.len())]).collect();
                let found = Fold::new(&needle).is_in(&text);
                assert_eq!(found, regex.is_match(&text), "{needle:?} in {text:?}");
            }
        }
    }

    #[test]
    fn stays_linear() {
        let text = "a".repeat(1 << 17);
        let started = std::time::Instant::now();
        assert!(!Fold::new(&format!("{}b", "A".repeat(16_000))).is_in(&text));
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
