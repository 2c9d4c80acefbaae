//! The references: programs by K. Walisch that count the primes of a range, or count or sum all up to a number.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use model::NumberRange;

use crate::figures::quantile;

/// A program to compare with.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    /// Debian's package, if there is one; the libraries that it needs are asked for there.
    package: Option<&'static str>,
    /// The arguments of a run that starts and ends without work.
    nothing: &'static [&'static str],
}

/// Counts the primes of a range.
pub(crate) const PRIMESIEVE: Program =
    Program { name: "primesieve", package: Some("primesieve-bin"), nothing: &["-c", "-q", "0", "0"] };

/// Counts the primes up to a number.
pub(crate) const PRIMECOUNT: Program = Program { name: "primecount", package: Some("primecount-bin"), nothing: &["1"] };

/// Sums the primes up to a number.
pub(crate) const PRIMESUM: Program = Program { name: "primesum", package: None, nothing: &["1"] };

/// Runs with nothing to do, whose median is taken off each time: what the programs print themselves is rounded to
/// milliseconds.
const STARTS: usize = 5;

/// A run on a busy machine may be over sooner than its start took before: the ratio to a time below zero would meet every goal.
const LEAST_SECONDS: f64 = 1e-6;

#[derive(Debug)]
pub(crate) struct Reference {
    program: Program,
    path: PathBuf,
    /// The directory of its libraries, if the program was unpacked and not installed.
    libraries: Option<PathBuf>,
    version: String,
}

impl Reference {
    /// The program at `given`, which must be it; else the one on the PATH, else Debian's, which is fetched once and stays
    /// in `cache`.
    pub(crate) fn find(program: Program, given: Option<&Path>, cache: &Path) -> anyhow::Result<Option<Self>> {
        let name = program.name;
        if let Some(given) = given {
            let found = Self::at(program, given.to_owned(), None);
            return found.with_context(|| format!("{} is not {name}", given.display())).map(Some);
        }
        let found = Self::found(&program, cache);
        if let Err(error) = &found {
            eprintln!("there is no {name} to compare with: {error:#}");
        }
        Ok(found.ok())
    }

    fn found(program: &Program, cache: &Path) -> anyhow::Result<Self> {
        let &Program { name, package, nothing } = program;
        let program = || Program { name, package, nothing };
        let on_path = Self::at(program(), name.into(), None);
        let Some(package) = package.filter(|_| on_path.is_err()) else { return on_path };
        let unpacked = cache.join(name);
        Self::unpacked(program(), &unpacked).or_else(|_| {
            fetch(package, &unpacked)?;
            Self::unpacked(program(), &unpacked)
        })
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Seconds to count the primes of a range on so many threads.
    pub(crate) fn seconds(&self, range: NumberRange, threads: u32) -> anyhow::Result<f64> {
        let [a, b] = [range.a(), range.b()].map(|number| number.to_string());
        self.seconds_beyond_start(&["-c", "-q", &format!("-t{threads}"), &a, &b])
    }

    /// Seconds to count or sum the primes up to `x` on so many threads.
    pub(crate) fn seconds_up_to(&self, x: u64, threads: u32) -> anyhow::Result<f64> {
        self.seconds_beyond_start(&[&x.to_string(), &format!("-t{threads}")])
    }

    fn seconds_beyond_start(&self, arguments: &[&str]) -> anyhow::Result<f64> {
        let nothing = self.program.nothing;
        let mut starts = (0..STARTS).map(|_| self.run(nothing)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok((self.run(arguments)? - quantile(&mut starts, 0.5)).max(LEAST_SECONDS))
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<f64> {
        let mut command = self.command();
        let started_at = Instant::now();
        let status = command.args(arguments).stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("start {}", self.program.name))?;
        let seconds = started_at.elapsed().as_secs_f64();
        ensure!(status.success(), "{} failed: {status}", self.program.name);
        Ok(seconds)
    }

    fn unpacked(program: Program, root: &Path) -> anyhow::Result<Self> {
        let libraries = fs::read_dir(root.join("usr/lib")).context("look for its libraries")?;
        let libraries = libraries.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir());
        let path = root.join("usr/bin").join(program.name);
        Self::at(program, path, libraries)
    }

    fn at(program: Program, path: PathBuf, libraries: Option<PathBuf>) -> anyhow::Result<Self> {
        let name = program.name;
        let mut found = Self { program, path, libraries, version: String::new() };
        let output = found.command().arg("--version").output().with_context(|| format!("start {name}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().filter(|line| line.starts_with(name));
        version
            .context("it does not say its version")?
            .split(',')
            .next()
            .unwrap_or_default()
            .clone_into(&mut found.version);
        Ok(found)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Unpacks Debian's packages without installing them, which needs no rights.
fn fetch(package: &str, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    let depends = match run(root, "apt-cache", ["depends", package]) {
        Ok(depends) => depends,
        Err(_) => {
            // Only root may do this.
            run(root, "apt-get", ["update", "-qq"])?;
            run(root, "apt-cache", ["depends", package])?
        }
    };
    let libraries = depends.split_whitespace().filter(|word| word.starts_with("libprime"));
    run(root, "apt-get", ["download", "-qq", package].into_iter().chain(libraries))?;
    for file in fs::read_dir(root).context("look for the packages")? {
        let file = file.context("look for the packages")?.path();
        if file.extension() == Some(OsStr::new("deb")) {
            run(root, "dpkg", [OsStr::new("-x"), file.as_os_str(), root.as_os_str()])?;
        }
    }
    Ok(())
}

fn run<S: AsRef<OsStr>>(root: &Path, program: &str, arguments: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let output = command.current_dir(root).args(arguments).env("LC_ALL", "C").output();
    let output = output.with_context(|| format!("start {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
