//! The parameters of a request, parsed totally, with HDFS's names, ranges and error texts.
//!
//! Names are taken without regard to case; of a name that comes twice the first counts, but for those that may repeat.
//! An empty value is as none. What a parameter must look like is checked where it is asked for, so that a parameter
//! of no meaning for an operation is never an error, as in HDFS.

use ipc::exceptions as class;

use crate::paths::{Plus, decode, encode_query};
use crate::{Exception, Result, USER_DEFAULT};

/// Bytes of a query.
const QUERY_BYTES_MAX: usize = 60 << 10;
/// Parameters of a query.
const PARAMS_MAX: usize = 128;
/// Bits of a mode that may be set: HDFS knows neither set-user-id nor set-group-id.
const MODE_MAX: u32 = 0o1777;

/// The parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Names in lower case, and values, in the order in which they came.
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Takes a query apart.
    pub fn parse(query: &str) -> Result<Self> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Exception::illegal(format!(
                "the query has {} bytes, at most {QUERY_BYTES_MAX}",
                query.len()
            )));
        }
        let mut pairs = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == PARAMS_MAX {
                return Err(Exception::illegal(format!("more than {PARAMS_MAX} parameters")));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decode(name, Plus::Space)?.to_lowercase();
            pairs.push((name, decode(value, Plus::Space)?));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter, if there is one that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter that is not empty.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs
            .iter()
            .filter(move |(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that must be there.
    pub fn required(&self, name: &str) -> Result<&str> {
        self.text(name).ok_or_else(|| {
            Exception::illegal(format!(
                "Required param {name} for op: {} is null or empty",
                self.op()
            ))
        })
    }

    /// The operation, in upper case; `NULL` if none is named.
    pub fn op(&self) -> String {
        self.text("op").unwrap_or("NULL").to_uppercase()
    }

    /// Who calls. A call for somebody else (`doas`) is refused: HDFS lets only those proxies do that whom an operator
    /// named, and there are none.
    pub fn user(&self) -> Result<&str> {
        let user = self.text("user.name").unwrap_or(USER_DEFAULT);
        check_user("user.name", user)?;
        let Some(other) = self.text("doas").filter(|other| *other != user) else { return Ok(user) };
        check_user("doas", other)?;
        Err(Exception::new(
            class::SECURITY,
            format!(
                "Failed to obtain user group information: {}: User: {user} is not allowed to \
                 impersonate {other}",
                class::AUTHORIZATION
            ),
        ))
    }

    /// A truth value.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(Exception::parameter(
                name,
                format_args!("Failed to parse \"{}\" to Boolean.", shown(text)),
            )),
        }
    }

    /// A number of 64 bits, not below `min`.
    pub fn long(&self, name: &str, min: i64) -> Result<Option<i64>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value: i64 = text.parse().map_err(|_| {
            let why = format!("Failed to parse \"{}\" as a radix-10 long integer.", shown(text));
            Exception::parameter(name, why)
        })?;
        in_range(name, value, min, i64::MAX)?;
        Ok(Some(value))
    }

    /// A number of 32 bits, not below `min`.
    pub fn int(&self, name: &str, min: i32) -> Result<Option<i32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value: i32 = text.parse().map_err(|_| {
            let why = format!("Failed to parse \"{}\" as a radix-10 integer.", shown(text));
            Exception::parameter(name, why)
        })?;
        in_range(name, value.into(), min.into(), i32::MAX.into())?;
        Ok(Some(value))
    }

    /// A number of 16 bits, not below `min`.
    pub fn short(&self, name: &str, min: i16) -> Result<Option<i16>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value: i16 = text.parse().map_err(|_| {
            let why = format!("Failed to parse \"{}\" as a radix-10 short integer.", shown(text));
            Exception::parameter(name, why)
        })?;
        in_range(name, value.into(), min.into(), i16::MAX.into())?;
        Ok(Some(value))
    }

    /// Permission bits, in octal.
    pub fn mode(&self, name: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value = i16::from_str_radix(text, 8).map_err(|_| {
            let why = format!("Failed to parse \"{}\" as a radix-8 short integer.", shown(text));
            Exception::parameter(name, why)
        })?;
        let range = |sign: &str, bound: u32| {
            let text = format!("Invalid parameter range: {name} = {value:o} {sign} {bound:o}");
            Err(Exception::parameter(name, text))
        };
        match u32::try_from(value) {
            Err(_) => range("<", 0),
            Ok(mode) if mode > MODE_MAX => range(">", MODE_MAX),
            Ok(mode) => Ok(Some(mode)),
        }
    }

    /// What to pass on to a DataNode: every parameter but `without` (in lower case), as a query that begins with `&`.
    pub fn pass_on(&self, without: &[&str]) -> String {
        let mut query = String::new();
        for (name, value) in &self.pairs {
            if !without.contains(&name.as_str()) {
                query.push('&');
                query.push_str(&encode_query(name));
                query.push('=');
                query.push_str(&encode_query(value));
            }
        }
        query
    }
}

/// The error for an operation that a method does not have; `kind` is HDFS's name of the method's operations.
pub fn no_such_op(kind: &str, op: &str) -> Exception {
    if op == "NULL" {
        return Exception::unsupported("op=NULL is not supported");
    }
    Exception::parameter(
        "op",
        format_args!(
            "No enum constant org.apache.hadoop.hdfs.web.resources.{kind}OpParam.Op.{}",
            shown(op)
        ),
    )
}

fn in_range(name: &str, value: i64, min: i64, max: i64) -> Result<()> {
    let range = |sign: &str, bound: i64| {
        let text = format!("Invalid parameter range: {name} = {value} {sign} {bound}");
        Err(Exception::parameter(name, text))
    };
    match value {
        _ if value < min => range("<", min),
        _ if value > max => range(">", max),
        _ => Ok(()),
    }
}

/// HDFS's default pattern of user names.
fn check_user(name: &str, user: &str) -> Result<()> {
    let letters = user.strip_suffix('$').unwrap_or(user);
    let begins = letters.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if begins && letters.chars().all(fits) && user.len() <= proto::limits::PRINCIPAL_BYTES_MAX {
        return Ok(());
    }
    Err(Exception::parameter(
        name,
        format_args!(
            "Invalid value: \"{}\" does not belong to the domain ^[A-Za-z_][A-Za-z0-9._-]*[$]?$",
            shown(user)
        ),
    ))
}

/// What is shown of a value: it may be long.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    #[test]
    fn names_have_no_case_and_the_first_value_counts() {
        let params = params("OP=open&Offset=7&offset=8&length=&user.name=alice&x=a+b%2Bc");
        assert_eq!((params.op().as_str(), params.user().unwrap()), ("OPEN", "alice"));
        assert_eq!(params.long("offset", 0).unwrap(), Some(7));
        assert_eq!(params.long("length", 0).unwrap(), None);
        assert_eq!(params.text("x"), Some("a b+c"));
    }

    #[test]
    fn who_does_not_say_who_he_is_gets_the_static_user() {
        assert_eq!(params("op=OPEN").user().unwrap(), "dr.who");
        for bad in ["1a", "a%20b", "a%00", "%C3%A4", &"x".repeat(256)] {
            let error = params(&format!("user.name={bad}")).user().unwrap_err();
            assert_eq!(error.status.as_u16(), 400, "{bad}");
            assert!(error.message.contains("webhdfs parameter \"user.name\""), "{error:?}");
        }
        assert_eq!(params("user.name=HTTP$").user().unwrap(), "HTTP$");
    }

    #[test]
    fn nobody_calls_for_another() {
        assert_eq!(params("user.name=ann&doas=ann").user().unwrap(), "ann");
        for query in ["user.name=ann&doas=bob", "doas=bob"] {
            let error = params(query).user().unwrap_err();
            assert_eq!((error.status.as_u16(), error.class), (403, class::SECURITY), "{query}");
        }
    }

    #[test]
    fn values_out_of_their_range_are_told_as_hdfs_does() {
        let told = |error: Exception| error.message;
        let why = "Invalid value for webhdfs parameter";
        assert_eq!(
            told(params("recursive=maybe").boolean("recursive", false).unwrap_err()),
            format!("{why} \"recursive\": Failed to parse \"maybe\" to Boolean.")
        );
        assert_eq!(
            told(params("offset=-1").long("offset", 0).unwrap_err()),
            format!("{why} \"offset\": Invalid parameter range: offset = -1 < 0")
        );
        assert_eq!(
            told(params("length=x").long("length", 0).unwrap_err()),
            format!("{why} \"length\": Failed to parse \"x\" as a radix-10 long integer.")
        );
        assert_eq!(
            told(params("permission=888").mode("permission").unwrap_err()),
            format!("{why} \"permission\": Failed to parse \"888\" as a radix-8 short integer.")
        );
        assert_eq!(
            told(params("permission=2000").mode("permission").unwrap_err()),
            format!("{why} \"permission\": Invalid parameter range: permission = 2000 > 1777")
        );
        assert_eq!(params("permission=1777").mode("permission").unwrap(), Some(0o1777));
    }

    #[test]
    fn a_query_without_bounds_is_refused() {
        assert!(Params::parse(&"a=b&".repeat(PARAMS_MAX)).is_ok());
        assert!(Params::parse(&"a=b&".repeat(PARAMS_MAX + 1)).is_err());
        assert!(Params::parse(&"a".repeat(QUERY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_passed_on_reads_the_same_there() {
        let there =
            params("op=OPEN&a=%26%3D+%2B&noredirect=true&b=%25").pass_on(&["op", "noredirect"]);
        let there = params(&there);
        assert_eq!((there.text("a"), there.text("b")), (Some("&= +"), Some("%")));
        assert_eq!((there.text("op"), there.text("noredirect")), (None, None));
    }

    proptest! {
        #[test]
        fn any_query_is_parsed_or_refused(query: String) {
            if let Ok(params) = Params::parse(&query) {
                params.user().ok();
                for (name, _) in params.pairs.clone() {
                    params.boolean(&name, true).ok();
                    params.long(&name, 0).ok();
                    params.int(&name, 1).ok();
                    params.short(&name, 1).ok();
                    params.mode(&name).ok();
                }
            }
        }
    }
}
