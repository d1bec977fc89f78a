//! Words of a text, as terms of an index. Pure.
//!
//! A term is a run of letters and digits (Unicode's alphabetic and numeric characters), in lower case. Everything else,
//! `_` and bytes that are not UTF-8 among it, stands between terms. Terms shorter or longer than the bounds are left out.

/// Bounds of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokenizer {
    /// Characters that a term has at least.
    pub chars_min: usize,
    /// Bytes that a term has at most, in lower case.
    pub bytes_max: usize,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self { chars_min: 2, bytes_max: 64 }
    }
}

/// What a byte is: 0 stands between terms, [`BEYOND_ASCII`] needs a look at the whole character, and anything else is
/// the byte in lower case.
const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b if b.is_ascii_alphanumeric() => b.to_ascii_lowercase(),
            0x80.. => BEYOND_ASCII,
            _ => 0,
        };
        byte += 1;
    }
    table
};

const BEYOND_ASCII: u8 = 0xff;

impl Tokenizer {
    /// Calls `each` with every term, in order. `term` is room that is used over and over.
    pub fn for_each(&self, text: &[u8], term: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < text.len() {
            let class = CLASS[usize::from(text[at])];
            if class == 0 {
                at += 1;
                continue;
            }
            term.clear();
            let mut chars = 0;
            let mut whole = true;
            while let Some(taken) = self.step(&text[at..], term, &mut whole) {
                at += taken;
                chars += 1;
            }
            if chars >= self.chars_min && whole {
                each(term);
            } else if chars == 0 {
                // A character or byte beyond ASCII that stands between terms.
                at += decode(&text[at..]).1;
            }
        }
    }

    /// Appends the first character to the term, if it belongs to one, and gives its bytes in the text.
    #[inline]
    fn step(&self, text: &[u8], term: &mut Vec<u8>, whole: &mut bool) -> Option<usize> {
        let (first, room) = (*text.first()?, self.bytes_max.saturating_sub(term.len()));
        match CLASS[usize::from(first)] {
            0 => None,
            BEYOND_ASCII => {
                let (character, bytes) = decode(text);
                let character = character.filter(|c| c.is_alphanumeric())?;
                let lower = character.to_lowercase();
                if lower.clone().map(char::len_utf8).sum::<usize>() > room {
                    *whole = false;
                } else {
                    let mut buffer = [0; 4];
                    lower.for_each(|c| {
                        term.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes())
                    });
                }
                Some(bytes)
            }
            lower => {
                if room == 0 {
                    *whole = false;
                } else {
                    term.push(lower);
                }
                Some(1)
            }
        }
    }
}

/// The first character, if the bytes begin with one, and how many bytes to go on by.
fn decode(text: &[u8]) -> (Option<char>, usize) {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&head[..e.valid_up_to()]).expect("valid up to there"),
    };
    match valid.chars().next() {
        Some(character) => (Some(character), character.len_utf8()),
        None => (None, 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(text: &[u8]) -> Vec<String> {
        terms_of(Tokenizer::default(), text)
    }

    fn terms_of(tokenizer: Tokenizer, text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        let mut each = |term: &[u8]| found.push(String::from_utf8(term.to_vec()).unwrap());
        tokenizer.for_each(text, &mut Vec::new(), &mut each);
        found
    }

    #[test]
    fn terms_are_runs_of_letters_and_digits_in_lower_case() {
        assert_eq!(terms(b"Hello, WORLD: it's 2026! x"), ["hello", "world", "it", "2026"]);
        assert_eq!(terms(b"snake_case camelCase a.b.cd"), ["snake", "case", "camelcase", "cd"]);
        assert_eq!(terms(b""), [""; 0]);
        assert_eq!(terms(b" ,;_ "), [""; 0]);
    }

    #[test]
    fn letters_beyond_ascii_are_letters() {
        let text =
            "Gr\u{dc}\u{df}e \u{2014} \u{411}\u{443}\u{43b}\u{43a}\u{430}, \u{6771}\u{4eac}2020";
        let expected =
            ["gr\u{fc}\u{df}e", "\u{431}\u{443}\u{43b}\u{43a}\u{430}", "\u{6771}\u{4eac}2020"];
        assert_eq!(terms(text.as_bytes()), expected);
    }

    #[test]
    fn bytes_that_are_not_utf8_stand_between_terms() {
        assert_eq!(terms(b"ab\xffcd\xc3"), ["ab", "cd"]);
        assert_eq!(terms(b"\xe2\x82ab"), ["ab"]);
        assert_eq!(terms(b"ab\xe2\x82"), ["ab"]);
    }

    #[test]
    fn terms_out_of_bounds_are_left_out_whole() {
        let tokenizer = Tokenizer { chars_min: 2, bytes_max: 4 };
        assert_eq!(terms_of(tokenizer, b"a ab abcd abcde abcdefghij yz"), ["ab", "abcd", "yz"]);
        // Two characters of two bytes fit; a third does not.
        let text = "\u{e4}\u{e4} \u{e4}\u{e4}\u{e4} \u{e4}";
        assert_eq!(terms_of(tokenizer, text.as_bytes()), ["\u{e4}\u{e4}"]);
    }

    proptest! {
        #[test]
        fn any_text_gives_the_terms_of_the_plain_definition(text in ".{0,60}") {
            let plain: Vec<String> = text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| word.chars().count() >= 2)
                .map(|word| word.chars().flat_map(char::to_lowercase).collect::<String>())
                .filter(|word| word.len() <= 64)
                .collect();
            prop_assert_eq!(terms(text.as_bytes()), plain);
        }

        #[test]
        fn any_bytes_end_and_give_terms_within_bounds(text in prop::collection::vec(any::<u8>(), 0..200)) {
            for term in terms(&text) {
                prop_assert!(term.len() <= 64 && term.chars().count() >= 1);
            }
        }
    }
}
