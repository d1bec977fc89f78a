//! The known name that a wrong one probably meant.

/// The name among `known` that is nearest to `wrong`; `None` if none is near.
pub fn of<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    let scored = known.iter().map(|name| (strsim::jaro_winkler(&wrong, name), *name));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 > 0.75).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_slip_finds_its_key_and_nonsense_finds_none() {
        let known = ["grpc_addr", "http_addr", "replication", "dir"];
        assert_eq!(of("grpc-adr", &known), Some("grpc_addr"));
        assert_eq!(of("replicaton", &known), Some("replication"));
        assert_eq!(of("qqqq", &known), None);
    }
}
