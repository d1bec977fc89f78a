//! Permission bits as users write and read them: `755`, `u+x,go-w`, `drwxr-xr-x`. Pure.

/// A change of permission bits: absolute, or by classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, whatever they were.
    Exactly(u32),
    /// Changes in order.
    Clauses(Vec<Clause>),
}

/// One of the comma-separated parts: which bits a class keeps, loses and gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    op: char,
    bits: u32,
    x_if_any: bool,
}

impl std::str::FromStr for ModeChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
            return bits.map(Self::Exactly).ok_or_else(|| bad(text));
        }
        let clauses: Option<Vec<Clause>> = text.split(',').map(clause).collect();
        clauses.map(Self::Clauses).ok_or_else(|| bad(text))
    }
}

fn bad(text: &str) -> String {
    format!("{text:?} is not a mode; write octal digits as in 755, or u+x,go-w")
}

fn clause(text: &str) -> Option<Clause> {
    let split = text.find(['+', '-', '='])?;
    let mut who = 0;
    for class in text[..split].chars() {
        who |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    let who = if who == 0 { 0o7777 } else { who };
    let op = text[split..].chars().next()?;
    let (mut bits, mut x_if_any) = (0, false);
    for permission in text[split + 1..].chars() {
        match permission {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => x_if_any = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(Clause { who, op, bits, x_if_any })
}

impl ModeChange {
    /// The bits that follow from `old`. `folder`: `X` gives a folder its x in any case.
    pub fn apply(&self, old: u32, folder: bool) -> u32 {
        let clauses = match self {
            Self::Exactly(bits) => return *bits,
            Self::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(old, |mode, clause| {
            let extra = if clause.x_if_any && (folder || mode & 0o111 != 0) { 0o111 } else { 0 };
            // The sticky bit belongs to nobody's class alone.
            let who = clause.who | (clause.bits & 0o1000);
            let bits = (clause.bits | extra) & who;
            match clause.op {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !(clause.who & 0o777)) | bits,
            }
        })
    }
}

/// `rwxr-x--t` with the kind in front: `d`, `-`.
pub fn shown(folder: bool, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(if folder { 'd' } else { '-' });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, old: u32) -> u32 {
        text.parse::<ModeChange>().unwrap().apply(old, false)
    }

    #[test]
    fn modes_change_as_chmod_does() {
        assert_eq!(changed("755", 0), 0o755);
        assert_eq!(changed("u+x,go-w", 0o666), 0o744);
        assert_eq!(changed("a=r", 0o777), 0o444);
        assert_eq!(changed("+x", 0o644), 0o755);
        assert_eq!(changed("o+t", 0o777), 0o1777);
        assert_eq!(changed("a+X", 0o644), 0o644);
        assert_eq!("a+X".parse::<ModeChange>().unwrap().apply(0o644, true), 0o755);
        assert_eq!(changed("u+s", 0o755), 0o4755);
        for text in ["", "8", "99999", "u", "u+q", "z+x", "u+x,"] {
            assert!(text.parse::<ModeChange>().is_err(), "{text}");
        }
    }

    #[test]
    fn modes_print_as_ls_does() {
        assert_eq!(shown(true, 0o1777), "drwxrwxrwt");
        assert_eq!(shown(false, 0o644), "-rw-r--r--");
        assert_eq!(shown(false, 0o4644), "-rwSr--r--");
    }
}
