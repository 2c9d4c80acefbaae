//! `divvy-coordinator migrate`: moves everything from one store to another, while no coordinator uses either.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use store::Objects;
use store::transfer::{Source, Target, objects, outputs, programs, transfer};
use url::Url;

/// The command line of the program.
pub const USAGE: &str = "divvy-coordinator migrate --from STORE --to STORE [--from-results URL] [--to-results URL] \
    [--without-lost-results]\n\n\
    A STORE is a data directory or postgres://user:password@host/database. Results and outputs above 64 KiB and programs are \
    copied from --from-results to --to-results, each by default `results` in the data directory; with PostgreSQL the place must be named \
    if there are any. One that is not at its place stops the migration; with --without-lost-results it is listed, and its \
    job, task or program comes along without it.\n";

/// A store as the command line names it.
#[derive(Clone, PartialEq, Eq)]
enum StoreLocation {
    Directory(PathBuf),
    /// The URI of the database, which may hold a password.
    Postgres(String),
}

impl StoreLocation {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        if text.starts_with("file:") {
            let path = Objects::parse_url(text).ok().and_then(|url| url.to_file_path().ok());
            return Ok(Self::Directory(
                path.with_context(|| format!("{text} is not the URL of a directory, such as file:///srv/divvy"))?,
            ));
        }
        // The rest may hold a password.
        if let Some((scheme, _)) = text.split_once("://") {
            bail!("a store is a data directory or postgres://…, and {scheme}:// is neither");
        }
        Ok(Self::Directory(Path::new(text).to_owned()))
    }

    fn source(&self) -> anyhow::Result<Box<dyn Source>> {
        Ok(match self {
            Self::Directory(path) => Box::new(store_sqlite::Transfer::source(path)?),
            Self::Postgres(url) => Box::new(store_postgres::Transfer::source(url)?),
        })
    }

    fn target(&self) -> anyhow::Result<Box<dyn Target>> {
        Ok(match self {
            Self::Directory(path) => Box::new(store_sqlite::Transfer::target(path)?),
            Self::Postgres(url) => Box::new(store_postgres::Transfer::target(url)?),
        })
    }

    fn results(&self, url: Option<&Url>, option: &str) -> anyhow::Result<Objects> {
        match (self, url) {
            (_, Some(url)) => Ok(Objects::open(url)?),
            (Self::Directory(path), None) => Ok(Objects::local(&path.join("results"))?),
            (Self::Postgres(_), None) => {
                bail!("there are results or outputs above 64 KiB or programs: name their location with {option}")
            }
        }
    }
}

/// Arguments that name no two stores.
#[derive(Debug, thiserror::Error)]
#[error("{0:#} (see divvy-coordinator migrate --help)")]
pub struct WrongUsage(anyhow::Error);

/// The arguments of the command line.
struct Request {
    from: StoreLocation,
    to: StoreLocation,
    from_results: Option<Url>,
    to_results: Option<Url>,
    without_lost_results: bool,
}

impl Request {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let (mut from, mut to, mut from_results, mut to_results) = (None, None, None, None);
        let mut without_lost_results = false;
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{option} needs a value"));
            match option.as_str() {
                "--without-lost-results" => without_lost_results = true,
                "--from" => from = Some(StoreLocation::parse(value()?)?),
                "--to" => to = Some(StoreLocation::parse(value()?)?),
                "--from-results" => from_results = Some(Objects::parse_url(value()?).context("read --from-results")?),
                "--to-results" => to_results = Some(Objects::parse_url(value()?).context("read --to-results")?),
                other => {
                    // It may be a URL with a password.
                    let shown = other.split("://").next().unwrap_or_default();
                    bail!("{shown} is no option of migrate")
                }
            }
        }
        let from = from.context("--from is missing")?;
        let to = to.context("--to is missing")?;
        ensure!(from != to, "--from and --to name the same store");
        Ok(Self { from, to, from_results, to_results, without_lost_results })
    }
}

/// Moves everything and returns a summary for the terminal. Blocks.
///
/// # Errors
/// The arguments are wrong ([`WrongUsage`]), a store is in use, the target is not empty, or something cannot be read or written:
/// then the target has nothing but copied results, or everything if the answer to the last step is lost, as the error says.
pub fn migrate(arguments: &[String]) -> anyhow::Result<String> {
    let request = Request::parse(arguments).map_err(WrongUsage)?;
    let mut source = request.from.source().context("open the source")?;
    let mut target = request.to.target().context("open the target")?;
    let copied = copy_objects(&request, &mut *source)?;
    let mut text = String::new();
    for (table, rows) in transfer(&mut *source, &mut *target)? {
        text.push_str(&format!("{table}: {rows}\n"));
    }
    let Copied { results, outputs, lost } = copied;
    text.push_str(&format!("results above 64 KiB: {results}\noutputs above 64 KiB: {outputs}\n"));
    for object in lost {
        text.push_str(&format!("lost {object}\n"));
    }
    Ok(text)
}

/// Copies of objects.
#[derive(Default)]
struct Copied {
    /// Number of results that are at their place.
    results: usize,
    /// Number of copied outputs.
    outputs: u64,
    /// Objects that rows name and that are not at their place, by their kind and name.
    lost: Vec<String>,
}

impl Copied {
    fn note_lost(&mut self, request: &Request, kind: &str, name: &str) -> anyhow::Result<()> {
        ensure!(
            request.without_lost_results,
            "the {kind} {name} is not at its place: name the place with --from-results, or give up results, outputs and \
             programs that are lost with --without-lost-results"
        );
        self.lost.push(format!("{kind}: {name}"));
        Ok(())
    }
}

/// Copies results, outputs and programs from place to place.
fn copy_objects(request: &Request, source: &mut dyn Source) -> anyhow::Result<Copied> {
    let (names, programs, named_outputs) = (objects(source)?, programs(source)?, outputs(source)?);
    let mut copied = Copied::default();
    if names.is_empty() && programs.is_empty() && named_outputs.is_empty() {
        return Ok(copied);
    }
    let id = source.marks()?.store;
    let from = request.from.results(request.from_results.as_ref(), "--from-results")?;
    let to = request.to.results(request.to_results.as_ref(), "--to-results")?;
    if from.is_at(&to) {
        copied.results = names.len();
        return Ok(copied);
    }
    let (from, to) = (from.of_store(id), to.of_store(id));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for name in &names {
        if runtime.block_on(from.copy(name, &to)).context("copy a result")? {
            copied.results += 1;
        } else {
            copied.note_lost(request, "result", name)?;
        }
    }
    for program in programs {
        if !runtime.block_on(from.copy_program(program, &to)).context("copy a program")? {
            copied.note_lost(request, "program", &program.to_string())?;
        }
    }
    for output in runtime.block_on(from.lost_outputs(&named_outputs)).context("look for outputs")? {
        copied.note_lost(request, "output", &output)?;
    }
    copied.outputs = runtime.block_on(from.copy_outputs(&to)).context("copy an output")?;
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_wrong_are_told_without_a_password() {
        for (arguments, told) in [
            (vec!["--from", "postgress://me:secret@db/jobs", "--to", "there"], "postgress:// is neither"),
            (vec!["postgres://me:secret@db/jobs", "there"], "postgres is no option"),
            (vec!["--form", "there"], "--form is no option"),
        ] {
            let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
            let error = format!("{:#}", migrate(&arguments).expect_err("they are wrong"));
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
        }
    }
}
