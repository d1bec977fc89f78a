//! ACLs and extended attributes: as the text that parameters carry, and back.
//!
//! An ACL is `[default:]type:[name]:[rwx]` entries with commas between. An attribute's name begins with its namespace;
//! its value is plain text, text in quotes, hexadecimal after `0x`, or base 64 after `0s`. Parsing is total: any text
//! is a value or an error that names the parameter.

use ::webhdfs::{Exception, Result};
use axum::response::Response;
use ipc::exceptions as class;
use proto::hadoop::hdfs::acl_entry_proto::{AclEntryScopeProto, AclEntryTypeProto, FsActionProto};
use proto::hadoop::hdfs::x_attr_proto::XAttrNamespaceProto;
use proto::hadoop::hdfs::*;
use serde_json::{Value, json};

use super::Ask;

/// Entries of one ACL text: HDFS keeps 32 of each scope.
const ACL_ENTRIES_MAX: usize = 1_000;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whether the entries of an ACL text say which permissions they give.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Permissions {
    /// They must.
    Told,
    /// They don't: they name entries to remove.
    Left,
}

/// The entries of an ACL text.
pub(super) fn acl_spec(text: &str, permissions: Permissions) -> Result<Vec<AclEntryProto>> {
    let entries: Vec<&str> = text.split(',').map(str::trim).collect();
    if entries.len() > ACL_ENTRIES_MAX {
        return Err(Exception::illegal(format!(
            "the ACL has {} entries, at most {ACL_ENTRIES_MAX}",
            entries.len()
        )));
    }
    entries.into_iter().map(|entry| acl_entry(entry, permissions)).collect()
}

fn acl_entry(text: &str, permissions: Permissions) -> Result<AclEntryProto> {
    let bad = || {
        let shown: String = text.chars().take(200).collect();
        Exception::new(class::HADOOP_ILLEGAL_ARGUMENT, format!("Invalid <aclSpec> : {shown}"))
    };
    let mut parts: Vec<&str> = text.split(':').collect();
    let scope = if parts[0].eq_ignore_ascii_case("default") {
        parts.remove(0);
        AclEntryScopeProto::Default
    } else {
        AclEntryScopeProto::Access
    };
    let (kind, name, action_text) = match (parts.as_slice(), permissions) {
        (&[kind, name, action], Permissions::Told) => (kind, name, Some(action)),
        (&[kind, name] | &[kind, name, ""], Permissions::Left) => (kind, name, None),
        (&[kind], Permissions::Left) => (kind, "", None),
        _ => return Err(bad()),
    };
    let kind = AclEntryTypeProto::from_str_name(&kind.to_uppercase()).ok_or_else(bad)?;
    let permissions = match action_text {
        Some(text) => action(text).ok_or_else(bad)?,
        None => FsActionProto::None,
    };
    Ok(AclEntryProto {
        r#type: kind as i32,
        scope: scope as i32,
        permissions: permissions as i32,
        name: (!name.is_empty()).then(|| name.to_owned()),
    })
}

/// An entry as text.
pub(super) fn acl_text(entry: &AclEntryProto) -> String {
    let scope = match entry.scope() {
        AclEntryScopeProto::Default => "default:",
        AclEntryScopeProto::Access => "",
    };
    let kind = entry.r#type().as_str_name().to_lowercase();
    format!("{scope}{kind}:{}:{}", entry.name(), symbol(entry.permissions()))
}

/// `rwx`, with `-` for what is not allowed.
pub(super) fn action(text: &str) -> Option<FsActionProto> {
    let [r, w, x] = text.as_bytes() else { return None };
    let bit = |byte: u8, letter: u8, value: i32| match byte {
        b'-' => Some(0),
        _ if byte == letter => Some(value),
        _ => None,
    };
    let bits = bit(*r, b'r', 4)? + bit(*w, b'w', 2)? + bit(*x, b'x', 1)?;
    FsActionProto::try_from(bits).ok()
}

fn symbol(action: FsActionProto) -> String {
    let bits = action as i32;
    let letter = |bit: i32, letter: char| if bits & bit != 0 { letter } else { '-' };
    [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')].into_iter().collect()
}

/// GETXATTRS.
pub(super) async fn get_xattrs(ask: &Ask) -> Result<Value> {
    let names = ask.params.all("xattr.name").map(xattr_name).collect::<Result<_>>()?;
    let encoding = Encoding::of(ask.params.text("encoding"))?;
    let request = GetXAttrsRequestProto { src: ask.src(), x_attrs: names };
    let reply: GetXAttrsResponseProto = ask.call("getXAttrs", request).await?;
    let attributes = reply.x_attrs.iter().map(|attribute| {
        let value = attribute.value.as_ref().map(|value| encoding.text(value));
        json!({"name": full_name(attribute), "value": value})
    });
    let attributes: Vec<Value> = attributes.collect();
    Ok(json!({"XAttrs": attributes}))
}

/// LISTXATTRS: the names are JSON within a JSON text, as in HDFS.
pub(super) async fn list_xattrs(ask: &Ask) -> Result<Value> {
    let request = ListXAttrsRequestProto { src: ask.src() };
    let reply: ListXAttrsResponseProto = ask.call("listXAttrs", request).await?;
    let names: Vec<String> = reply.x_attrs.iter().map(full_name).collect();
    Ok(json!({"XAttrNames": json!(names).to_string()}))
}

/// SETXATTR.
pub(super) async fn set_xattr(ask: &Ask) -> Result<Response> {
    let mut attribute = xattr_name(ask.params.required("xattr.name")?)?;
    attribute.value = Some(value_of(ask.params.text("xattr.value").unwrap_or(""))?.into());
    let mut flag = 0;
    for name in ask.params.text("flag").unwrap_or("CREATE,REPLACE").split(',') {
        flag |= match name.to_uppercase().as_str() {
            "CREATE" => XAttrSetFlagProto::XattrCreate as u32,
            "REPLACE" => XAttrSetFlagProto::XattrReplace as u32,
            other => {
                return Err(Exception::parameter(
                    "flag",
                    format_args!("No enum constant org.apache.hadoop.fs.XAttrSetFlag.{other}"),
                ));
            }
        };
    }
    let request =
        SetXAttrRequestProto { src: ask.src(), x_attr: Some(attribute), flag: Some(flag) };
    ask.tell::<SetXAttrResponseProto>("setXAttr", request).await
}

/// REMOVEXATTR.
pub(super) async fn remove_xattr(ask: &Ask) -> Result<Response> {
    let attribute = xattr_name(ask.params.required("xattr.name")?)?;
    let request = RemoveXAttrRequestProto { src: ask.src(), x_attr: Some(attribute) };
    ask.tell::<RemoveXAttrResponseProto>("removeXAttr", request).await
}

/// An attribute without a value, by its full name.
fn xattr_name(text: &str) -> Result<XAttrProto> {
    let (namespace, name) = text.split_once('.').unwrap_or((text, ""));
    let known = XAttrNamespaceProto::from_str_name(&namespace.to_uppercase());
    match known {
        Some(namespace) if !name.is_empty() => {
            Ok(XAttrProto { namespace: namespace as i32, name: name.to_owned(), value: None })
        }
        Some(_) => {
            Err(Exception::new(class::HADOOP_ILLEGAL_ARGUMENT, "XAttr name cannot be empty."))
        }
        None => Err(Exception::new(
            class::HADOOP_ILLEGAL_ARGUMENT,
            "An XAttr name must be prefixed with user/trusted/security/system/raw, followed by a '.'",
        )),
    }
}

fn full_name(attribute: &XAttrProto) -> String {
    format!("{}.{}", attribute.namespace().as_str_name().to_lowercase(), attribute.name)
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Text,
    Hex,
    Base64,
}

impl Encoding {
    fn of(name: Option<&str>) -> Result<Self> {
        match name.map(str::to_uppercase).as_deref() {
            None | Some("TEXT") => Ok(Self::Text),
            Some("HEX") => Ok(Self::Hex),
            Some("BASE64") => Ok(Self::Base64),
            Some(other) => Err(Exception::parameter(
                "encoding",
                format_args!("No enum constant org.apache.hadoop.fs.XAttrCodec.{other}"),
            )),
        }
    }

    fn text(self, value: &[u8]) -> String {
        match self {
            Self::Text => format!("\"{}\"", String::from_utf8_lossy(value)),
            Self::Hex => {
                let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("0x{digits}")
            }
            Self::Base64 => format!("0s{}", base64(value)),
        }
    }
}

/// The bytes that a value's text stands for.
fn value_of(text: &str) -> Result<Vec<u8>> {
    let bad = |what: &str| Exception::parameter("xattr.value", format_args!("it is not {what}"));
    let begins = |prefix: &str| text.get(..2).is_some_and(|two| two.eq_ignore_ascii_case(prefix));
    if begins("0x") {
        let digits: Option<Vec<u32>> = text[2..].chars().map(|c| c.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
        let digits = digits.ok_or_else(|| bad("hexadecimal, with two digits a byte"))?;
        return Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect());
    }
    if begins("0s") {
        return from_base64(&text[2..]).ok_or_else(|| bad("base 64"));
    }
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Ok(quoted.unwrap_or(text).as_bytes().to_vec())
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at > chunk.len() { '=' } else { char::from(BASE64[sextet]) });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            let sextet = match chunk.get(at) {
                Some(letter) => BASE64.iter().position(|known| known == letter)?,
                None => 0,
            };
            bits = bits << 6 | sextet as u32;
        }
        match chunk.len() {
            1 => return None,
            len => bytes.extend_from_slice(&bits.to_be_bytes()[1..len]),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn acl_texts_read_and_write_alike() {
        let text = "user::rwx,user:bob:r-x,group::r--,mask::rwx,other::---,default:group:web:-w-";
        let entries = acl_spec(text, Permissions::Told).unwrap();
        let written: Vec<String> = entries.iter().map(acl_text).collect();
        assert_eq!(written.join(","), text);
        let entries = acl_spec("user:bob:,default:group:web", Permissions::Left).unwrap();
        assert_eq!(entries[0].name(), "bob");
        assert_eq!(entries[1].scope(), AclEntryScopeProto::Default);
    }

    #[test]
    fn acl_texts_that_are_none_are_refused() {
        for text in
            ["", "user", "user:bob", "user::rwy", "owner::rwx", "user:a:b:rwx", "user::rwxx"]
        {
            let error = acl_spec(text, Permissions::Told).unwrap_err();
            assert_eq!(error.status.as_u16(), 400, "{text}");
        }
        assert!(acl_spec(&"user::rwx,".repeat(2_000), Permissions::Told).is_err());
    }

    #[test]
    fn values_are_text_or_hexadecimal_or_base_64() {
        for (text, bytes) in [
            ("plain", &b"plain"[..]),
            ("\"in quotes\"", b"in quotes"),
            ("0x00ff", &[0, 255]),
            ("0saGVsbG8=", b"hello"),
            ("0saGVsbG8", b"hello"),
            ("", b""),
        ] {
            assert_eq!(value_of(text).unwrap(), bytes, "{text}");
        }
        for text in ["0x0", "0xzz", "0s!", "0sa"] {
            assert!(value_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_begin_with_their_namespace() {
        let attribute = xattr_name("USER.a.b").unwrap();
        assert_eq!(full_name(&attribute), "user.a.b");
        for bad in ["", "user", "user.", "other.a", ".a"] {
            assert!(xattr_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn values_survive_each_encoding(bytes: Vec<u8>) {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                prop_assert_eq!(value_of(&encoding.text(&bytes)).unwrap(), bytes.clone());
            }
        }

        #[test]
        fn any_text_is_a_value_or_an_error(text: String) {
            acl_spec(&text, Permissions::Told).ok();
            acl_spec(&text, Permissions::Left).ok();
            value_of(&text).ok();
            xattr_name(&text).ok();
        }
    }
}
