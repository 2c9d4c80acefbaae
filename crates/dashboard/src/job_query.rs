//! The filter of a list of jobs. It lives in the page's address, so that it survives a reload and can be shared.

use std::time::Duration;

use model::{InvalidJob, JobKind, JobState};

/// The longest text that is looked for.
const MAX_TEXT_CHARS: usize = 200;

/// The age limit of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The name in the address.
    pub name: &'static str,
    /// The shown label.
    pub label: &'static str,
    /// The largest age.
    pub age: Duration,
}

/// The choices of the largest age.
const SINCE: &[Since] = &[
    Since { name: "10m", label: "last 10 minutes", age: Duration::from_mins(10) },
    Since { name: "1h", label: "last hour", age: Duration::from_hours(1) },
    Since { name: "24h", label: "last 24 hours", age: Duration::from_hours(24) },
    Since { name: "7d", label: "last 7 days", age: Duration::from_hours(168) },
];

impl Since {
    pub(crate) fn all() -> &'static [Self] {
        SINCE
    }
}

/// A filter and the page of its list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// Jobs in one of these states; empty for any.
    pub states: Vec<JobState>,
    /// Jobs of this kind.
    pub kind: Option<JobKind>,
    /// Jobs with all of these tags: `key` or `key:value`.
    pub tags: Vec<String>,
    /// Jobs with this text in the id, the kind, the parameters, a tag or the error.
    pub text: Option<String>,
    /// Submitted no longer ago.
    pub since: Option<Since>,
    /// The token of the page, from the page before.
    pub page: Option<String>,
}

impl JobQuery {
    /// Reads a query string; empty fields count as not given, as forms send them.
    ///
    /// # Errors
    /// A field has a value that it cannot have.
    pub fn parse(query: &str) -> Result<Self, InvalidJob> {
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|error| InvalidJob::new("query", format!("is not readable: {error}")))?;
        let mut wanted = Self::default();
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.trim().is_empty()) {
            let value = value.trim().to_owned();
            match name.as_str() {
                "state" => wanted.states.push(value.parse()?),
                "kind" => wanted.kind = Some(value.parse()?),
                "tag" => wanted.tags.push(value),
                "text" => wanted.text = Some(value.chars().take(MAX_TEXT_CHARS).collect()),
                "since" => wanted.since = Some(since(&value)?),
                "page" => wanted.page = Some(value),
                // Fields of other forms of the page.
                _ => (),
            }
        }
        wanted.states.sort_unstable();
        wanted.states.dedup();
        Ok(wanted)
    }

    /// Whether the filter leaves no job out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let Self { states, kind, tags, text, since, page: _ } = self;
        states.is_empty() && kind.is_none() && tags.is_empty() && text.is_none() && since.is_none()
    }

    /// The filter as a query string, without the page.
    #[must_use]
    pub fn filter(&self) -> String {
        serde_urlencoded::to_string(self.fields()).unwrap_or_default()
    }

    /// The names and values of the filter's fields.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields: Vec<_> = self.states.iter().map(|state| ("state", state.as_str().to_owned())).collect();
        fields.extend(self.kind.map(|kind| ("kind", kind.to_string())));
        fields.extend(self.tags.iter().map(|tag| ("tag", tag.clone())));
        fields.extend(self.text.clone().map(|text| ("text", text)));
        fields.extend(self.since.map(|since| ("since", since.name.to_owned())));
        fields
    }

    /// The list's path with this filter and another page.
    pub(crate) fn path(&self, page: Option<&str>) -> String {
        let mut fields = self.fields();
        fields.extend(page.map(|page| ("page", page.to_owned())));
        match serde_urlencoded::to_string(fields) {
            Ok(query) if !query.is_empty() => format!("/jobs?{query}"),
            _ => "/jobs".to_owned(),
        }
    }
}

fn since(name: &str) -> Result<Since, InvalidJob> {
    let found = SINCE.iter().find(|since| since.name == name);
    found.copied().ok_or_else(|| InvalidJob::new("since", "must be 10m, 1h, 24h or 7d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_its_way_through_an_address() {
        let query = "state=failed&state=running&kind=sleep&tag=team%3Ablue&tag=a%2C+b&text=a+b%26c&since=1h";
        let wanted = JobQuery::parse(query).expect("valid");
        assert_eq!(wanted.states, [JobState::Running, JobState::Failed]);
        assert_eq!(wanted.text.as_deref(), Some("a b&c"));
        assert_eq!(wanted.tags, ["team:blue", "a, b"]);
        assert_eq!(JobQuery::parse(&wanted.filter()).expect("valid"), wanted);
        assert!(!wanted.is_all());
    }

    #[test]
    fn empty_fields_are_no_filter_and_wrong_ones_are_named() {
        assert!(JobQuery::parse("state=&kind=&tag=+&text=").expect("valid").is_all());
        for (query, field) in [("state=lost", "state"), ("since=2y", "since"), ("kind=A", "kind")] {
            assert_eq!(JobQuery::parse(query).expect_err(query).field, field);
        }
    }
}
