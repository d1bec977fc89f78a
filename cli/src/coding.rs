//! How files are coded, as users write it: the name of an erasure-coding policy, or `replicated`.

use proto::erasure::{Codec, POLICIES, Policy};

/// What stands for "no erasure coding".
pub const REPLICATED: &str = "replicated";

/// Whether files can be coded by it.
fn is_usable(policy: &Policy) -> bool {
    policy.codec != Codec::ReedSolomonLegacy
}

/// The number of a policy by its name, in any case, with or without the size of its cells; 0: replicated.
pub fn parse(text: &str) -> Result<u32, String> {
    if text.eq_ignore_ascii_case(REPLICATED) {
        return Ok(0);
    }
    let named = |policy: &Policy| {
        let short = policy.name.rsplit_once('-').map_or(policy.name, |(short, _)| short);
        text.eq_ignore_ascii_case(policy.name) || text.eq_ignore_ascii_case(short)
    };
    match POLICIES.into_iter().filter(is_usable).find(named) {
        Some(policy) => Ok(policy.id.into()),
        None => Err(format!("no such policy; there are {}", names().join(", "))),
    }
}

/// What can be asked for.
fn names() -> Vec<&'static str> {
    let policies = POLICIES.iter().filter(|policy| is_usable(policy)).map(|policy| policy.name);
    policies.chain([REPLICATED]).collect()
}

/// A policy's name by its number.
pub fn name(number: u32) -> String {
    if number == 0 {
        return REPLICATED.to_owned();
    }
    let known = u8::try_from(number).ok().and_then(Policy::by_id);
    known.map_or_else(|| format!("policy {number}"), |policy| policy.name.to_owned())
}

/// The units of a policy as `6+3`; `None` of what is replicated.
pub fn units(number: u32) -> Option<String> {
    let policy = u8::try_from(number).ok().and_then(Policy::by_id)?;
    Some(format!("{}+{}", policy.data_units, policy.parity_units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_found_by_long_and_short_names_and_told_if_there_is_none() {
        assert_eq!(parse("RS-6-3-1024k"), Ok(1));
        assert_eq!(parse("rs-3-2"), Ok(2));
        assert_eq!(parse("xor-2-1-1024K"), Ok(4));
        assert_eq!(parse("Replicated"), Ok(0));
        let error = parse("RS-9-9").unwrap_err();
        assert!(error.contains("RS-10-4-1024k") && error.contains("replicated"), "{error}");
        assert!(parse("RS-LEGACY-6-3-1024k").is_err(), "nothing is coded by it");
        assert_eq!((name(5), name(0)), ("RS-10-4-1024k".to_owned(), "replicated".to_owned()));
        assert_eq!((units(1), units(0)), (Some("6+3".to_owned()), None));
    }
}
