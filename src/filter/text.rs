//! LIKE and substrings, each in time linear in the value; the store's SQL functions call these.
//!
//! A pattern is cut at its `%`. What stands before the first must begin the value, what stands
//! after the last must end it, and the pieces between are looked for from left to right, each at
//! its first place after the one before: taking the earliest place never spoils a later piece, so
//! nothing is tried twice. Pieces without `_` are found by memmem; pieces with `_` between
//! letters by bit-parallel matching (Shift-And), where trying each place in turn would cost the
//! product of both lengths (`a_a_a_…` over a megabyte of `a` would stop the matcher for seconds).

use std::fmt;

use memchr::memmem::Finder;

/// A substring to look for, literally.
#[derive(Clone)]
pub struct Needle {
    source: Box<str>,
    finder: Finder<'static>,
}

impl Needle {
    pub fn new(text: &str) -> Self {
        Needle { source: text.into(), finder: Finder::new(text).into_owned() }
    }

    /// Whether `text` contains the needle; the empty needle is in every text.
    pub fn is_in(&self, text: &str) -> bool {
        self.finder.find(text.as_bytes()).is_some()
    }

    /// The text that is looked for.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl PartialEq for Needle {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Needle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Needle({:?})", self.source)
    }
}

/// A LIKE pattern: `%` any run of characters, `_` one character, `\` takes the next as it is.
/// Case-sensitive; matches the whole value, newlines included.
#[derive(Clone)]
pub struct Like {
    source: Box<str>,
    head: Run,
    /// `None` where the pattern has no `%`: then `head` is all of it.
    rest: Option<Rest>,
}

/// What follows the first `%`.
#[derive(Clone)]
struct Rest {
    pieces: Vec<Piece>,
    /// Characters (`_`) that must stand between the last piece and the tail.
    gap: usize,
    tail: Run,
}

/// Something to find after `gap` characters or more.
#[derive(Clone)]
struct Piece {
    gap: usize,
    core: Core,
}

#[derive(Clone)]
enum Core {
    Plain(Box<Finder<'static>>),
    Mixed(Shift),
}

/// A part of a pattern whose place is known.
#[derive(Clone, Default)]
struct Run(Vec<Item>);

#[derive(Clone)]
enum Item {
    Text(String),
    /// So many characters, whichever.
    Any(usize),
}

impl Like {
    /// Reads a pattern; a single `\` at its end is an error.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let mut runs = vec![Run::default()];
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            let Some(run) = runs.last_mut() else { break };
            match char {
                '%' => runs.push(Run::default()),
                '_' => run.any(),
                '\\' => run.char(chars.next().ok_or(
                    "a single \\ ends the pattern; write \\\\ for a backslash (in JSON \\\\\\\\)",
                )?),
                char => run.char(char),
            }
        }
        let tail = if runs.len() > 1 { runs.pop() } else { None };
        let mut runs = runs.into_iter();
        let head = runs.next().unwrap_or_default();
        let rest = tail.map(|tail| {
            let (mut pieces, mut gap) = (Vec::new(), 0);
            for run in runs {
                // `%_` and `_%` mean the same, so wild characters at either end of a piece are
                // counted as a gap and a core begins and ends with text.
                let (before, core, after) = run.trim();
                gap += before;
                if let Some(core) = core {
                    pieces.push(Piece { gap, core });
                    gap = 0;
                }
                gap += after;
            }
            Rest { pieces, gap, tail }
        });
        Ok(Like { source: pattern.into(), head, rest })
    }

    /// Whether the whole of `text` fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let Some(text) = self.head.strip_start(text) else {
            return false;
        };
        match &self.rest {
            None => text.is_empty(),
            Some(rest) => rest.matches(text).unwrap_or(false),
        }
    }

    /// The pattern as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The only text that fits, where the pattern has no wild characters.
    pub fn exact(&self) -> Option<&str> {
        match (self.head.0.as_slice(), &self.rest) {
            ([], None) => Some(""),
            ([Item::Text(text)], None) => Some(text),
            _ => None,
        }
    }

    /// Texts that stand in every text that fits; perhaps not all of them.
    pub fn texts(&self) -> impl Iterator<Item = &str> + Clone {
        let (pieces, tail) = match &self.rest {
            Some(rest) => (rest.pieces.as_slice(), rest.tail.0.as_slice()),
            None => (&[][..], &[][..]),
        };
        let ends = self.head.0.iter().chain(tail).filter_map(|item| match item {
            Item::Text(text) => Some(text.as_str()),
            Item::Any(_) => None,
        });
        let between = pieces.iter().filter_map(|piece| match &piece.core {
            Core::Plain(finder) => std::str::from_utf8(finder.needle()).ok(),
            Core::Mixed(_) => None,
        });
        ends.chain(between)
    }

    /// How often a text's reading it takes at most: one, and one more for every 64 places of its
    /// longest piece with `_` within, each of which is held against each character, and for every
    /// 16 pieces, as a search has to be begun for each.
    pub fn readings(&self) -> u64 {
        let pieces = self.rest.as_ref().map_or(&[][..], |rest| &rest.pieces);
        let words = pieces.iter().map(|piece| match &piece.core {
            Core::Plain(_) => 0,
            Core::Mixed(shift) => shift.length / 64,
        });
        1 + words.max().unwrap_or(0) as u64 + pieces.len() as u64 / 16
    }

    /// How every text that fits begins.
    pub fn prefix(&self) -> &str {
        match self.head.0.first() {
            Some(Item::Text(text)) => text,
            _ => "",
        }
    }
}

impl Rest {
    fn matches(&self, text: &str) -> Option<bool> {
        // The tail first: it costs least and refuses most.
        let mut text = self.tail.strip_end(text)?;
        for piece in &self.pieces {
            text = skip(text, piece.gap)?;
            let end = match &piece.core {
                Core::Plain(finder) => finder.find(text.as_bytes())? + finder.needle().len(),
                Core::Mixed(shift) => shift.find_end(text)?,
            };
            // A match of UTF-8 in UTF-8 ends between characters.
            text = text.get(end..)?;
        }
        skip(text, self.gap).map(|_| true)
    }
}

/// `text` without its first `count` characters, `None` where it has fewer.
fn skip(text: &str, count: usize) -> Option<&str> {
    if count == 0 {
        return Some(text);
    }
    let mut chars = text.chars();
    chars.nth(count - 1)?;
    Some(chars.as_str())
}

impl Run {
    fn char(&mut self, char: char) {
        match self.0.last_mut() {
            Some(Item::Text(text)) => text.push(char),
            _ => self.0.push(Item::Text(char.into())),
        }
    }

    fn any(&mut self) {
        match self.0.last_mut() {
            Some(Item::Any(count)) => *count += 1,
            _ => self.0.push(Item::Any(1)),
        }
    }

    fn strip_start<'a>(&self, mut text: &'a str) -> Option<&'a str> {
        for item in &self.0 {
            text = match item {
                Item::Text(wanted) => text.strip_prefix(wanted.as_str())?,
                Item::Any(count) => skip(text, *count)?,
            };
        }
        Some(text)
    }

    fn strip_end<'a>(&self, mut text: &'a str) -> Option<&'a str> {
        for item in self.0.iter().rev() {
            text = match item {
                Item::Text(wanted) => text.strip_suffix(wanted.as_str())?,
                Item::Any(count) => {
                    let mut chars = text.chars();
                    chars.nth_back(count - 1)?;
                    chars.as_str()
                }
            };
        }
        Some(text)
    }

    /// Wild characters before, the core that begins and ends with text, wild characters after.
    fn trim(mut self) -> (usize, Option<Core>, usize) {
        let (mut before, mut after) = (0, 0);
        if let Some(Item::Any(count)) = self.0.last() {
            after = *count;
            self.0.pop();
        }
        if let Some(Item::Any(count)) = self.0.first() {
            before = *count;
            self.0.remove(0);
        }
        let core = match self.0.as_slice() {
            [] => None,
            [Item::Text(text)] => Some(Core::Plain(Box::new(Finder::new(text).into_owned()))),
            items => Some(Core::Mixed(Shift::new(items))),
        };
        (before, core, after)
    }
}

/// Shift-And: bit `i` of the state says that the first `i + 1` characters of the piece fit the
/// text up to here. One step a character: shift, let a new try begin, keep the bits whose place
/// takes that character.
#[derive(Clone)]
struct Shift {
    length: usize,
    /// Places that take any character.
    wild: Box<[u64]>,
    /// By character, sorted: the words and bits of the places that take it.
    takes: Box<[(char, Places)]>,
}

/// Words of the state and the bits within.
type Places = Vec<(usize, u64)>;

impl Shift {
    fn new(items: &[Item]) -> Self {
        let mut wild = Vec::new();
        let mut takes = std::collections::BTreeMap::<char, Places>::new();
        let mut length = 0;
        let mut place = |char: Option<char>| {
            let (word, bit) = (length / 64, 1 << (length % 64));
            if length % 64 == 0 {
                wild.push(0_u64);
            }
            match char {
                None => wild[word] |= bit,
                Some(char) => {
                    let places = takes.entry(char).or_default();
                    match places.last_mut() {
                        Some((last, bits)) if *last == word => *bits |= bit,
                        _ => places.push((word, bit)),
                    }
                }
            }
            length += 1;
        };
        for item in items {
            match item {
                Item::Text(text) => text.chars().for_each(|char| place(Some(char))),
                Item::Any(count) => (0..*count).for_each(|_| place(None)),
            }
        }
        Shift { length, wild: wild.into(), takes: takes.into_iter().collect() }
    }

    /// Where the first match ends, in bytes.
    fn find_end(&self, text: &str) -> Option<usize> {
        // Bytes are never fewer than characters: a long piece costs nothing on a short text.
        if text.len() < self.length {
            return None;
        }
        let words = self.wild.len();
        let (mut few, mut many) = ([0_u64; 4], Vec::new());
        let state = if words <= few.len() {
            &mut few[..words]
        } else {
            many.resize(words, 0);
            many.as_mut_slice()
        };
        let last = 1 << ((self.length - 1) % 64);
        for (at, char) in text.char_indices() {
            let taken = self
                .takes
                .binary_search_by_key(&char, |(char, _)| *char)
                .map_or(&[][..], |index| self.takes[index].1.as_slice());
            let mut taken = taken.iter().peekable();
            let mut carry = 1;
            for (index, (bits, wild)) in state.iter_mut().zip(&self.wild).enumerate() {
                let here = taken.next_if(|(word, _)| *word == index).map_or(0, |(_, bits)| *bits);
                let shifted = (*bits << 1) | carry;
                carry = *bits >> 63;
                *bits = shifted & (wild | here);
            }
            if state[words - 1] & last != 0 {
                return Some(at + char.len_utf8());
            }
        }
        None
    }
}

impl PartialEq for Like {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Like {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Like({:?})", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one line a rule: exponential, for small inputs only.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['%', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            ['_', rest @ ..] => !text.is_empty() && naive(rest, &text[1..]),
            ['\\', char, rest @ ..] => text.first() == Some(char) && naive(rest, &text[1..]),
            [char, rest @ ..] => text.first() == Some(char) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn cases() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%", "a\nb", true),
            ("a%", "abc", true),
            ("a%", "Abc", false),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("_", "é", true),
            ("_", "👩‍🚀", false),
            ("a_c", "a\nc", true),
            ("%a_c%", "xxaxcxx", true),
            ("%a_c%a_c", "abcabc", true),
            ("%a_c%a_c", "ababc", false),
            ("100\\%", "100%", true),
            ("100\\%", "1000", false),
            ("\\_\\\\", "_\\", true),
            ("\\a", "a", true),
            ("ab%ba", "aba", false),
            ("%_", "", false),
            ("%__%", "x", false),
            ("%__%", "xy", true),
        ] {
            let like = Like::new(pattern).expect(pattern);
            assert_eq!(like.matches(text), fits, "{text:?} LIKE {pattern:?}");
        }
        assert!(Like::new("abc\\").is_err());
        assert!(Like::new("abc\\\\").is_ok());
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..40_000 {
            let pattern: String =
                (0..next(9)).map(|_| ['a', 'b', 'é', '_', '%'][next(5) as usize]).collect();
            let text: String = (0..next(9)).map(|_| ['a', 'b', 'é'][next(3) as usize]).collect();
            let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            let like = Like::new(&pattern).expect("no escape in it");
            assert_eq!(like.matches(&text), naive(&p, &t), "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn pieces_longer_than_a_word() {
        let piece = format!("%a{}b%c{}d%", "_".repeat(100), "x_".repeat(150));
        let text = format!("zza{}b--c{}d", "é".repeat(100), "xy".repeat(150));
        let like = Like::new(&piece).expect("a pattern");
        assert!(like.matches(&text));
        assert!(!like.matches(&text.replace('d', "e")));
    }

    /// Texts about as long as the piece, shorter in characters and not in bytes among them.
    #[test]
    fn pieces_as_long_as_the_text() {
        for length in 1..140 {
            let like = Like::new(&format!("%a{}b%", "_".repeat(length))).expect("a pattern");
            for (char, chars) in
                [('x', length - 1), ('x', length), ('é', length - 1), ('é', length)]
            {
                let text = format!("a{}b", char.to_string().repeat(chars));
                assert_eq!(like.matches(&text), chars == length, "{text:?}, {length}");
                assert_eq!(like.matches(&format!("é{text}é")), chars == length, "{text:?}");
            }
        }
    }

    #[test]
    fn what_takes_longer_counts_more() {
        for (pattern, readings) in [
            ("", 1),
            ("a%", 1),
            ("%a_b%", 1),
            (&*format!("%{}b%", "a_".repeat(31)), 1),
            (&*format!("%{}b%", "a_".repeat(32)), 2),
            (&*format!("%{}b%c_d%", "a_".repeat(8_000)), 251),
            (&*format!("{}%{}", "a_".repeat(8_000), "a_".repeat(8_000)), 1),
            (&*format!("%{}%", "a".repeat(8_000)), 1),
            (&*"%a".repeat(160), 10),
        ] {
            let like = Like::new(pattern).expect("a pattern");
            assert_eq!(like.readings(), readings, "{pattern:.20}");
        }
    }

    #[test]
    fn hard_patterns_stay_linear() {
        let text = "a".repeat(1 << 17);
        let started = std::time::Instant::now();
        for pattern in [
            format!("%{}b", "a%".repeat(8_000)),
            format!("%{}b%", "a_".repeat(8_000)),
            format!("%{}b%", "a".repeat(16_000)),
            format!("{}%b", "_".repeat(16_000)),
        ] {
            assert!(!Like::new(&pattern).expect("a pattern").matches(&text));
        }
        // Milliseconds when optimised; many seconds if any of them were not linear.
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
