//! The reference: `primesieve`, which counts the primes of a range.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use model::NumberRange;

use crate::figures::quantile;

/// Debian's packages: the program, and what it needs is asked for there.
const PACKAGE: &str = "primesieve-bin";

/// Runs with nothing to do, whose median is taken off each time: what the program prints itself is rounded to
/// milliseconds.
const STARTS: usize = 5;

#[derive(Debug)]
pub(crate) struct Primesieve {
    program: PathBuf,
    /// Where its library is, if it was unpacked and not installed.
    libraries: Option<PathBuf>,
    version: String,
}

impl Primesieve {
    /// The program at `given`, which must be one; else the one on the PATH, else Debian's, which is fetched once and
    /// stays in `cache`.
    pub(crate) fn find(given: Option<&Path>, cache: &Path) -> anyhow::Result<Option<Self>> {
        if let Some(given) = given {
            let found = Self::at(given.to_owned(), None);
            return found.with_context(|| format!("PRIMESIEVE names {}", given.display())).map(Some);
        }
        let on_path = || Self::at("primesieve".into(), None);
        let unpacked = cache.join("primesieve");
        let found = on_path().or_else(|_| Self::unpacked(&unpacked)).or_else(|_| {
            fetch(&unpacked)?;
            Self::unpacked(&unpacked)
        });
        if let Err(error) = &found {
            eprintln!("there is no primesieve to compare with: {error:#}");
        }
        Ok(found.ok())
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Seconds to count the primes of a range on so many threads.
    pub(crate) fn seconds(&self, range: NumberRange, threads: u32) -> anyhow::Result<f64> {
        let mut starts = (0..STARTS).map(|_| self.run(0, 0, threads)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(self.run(range.a(), range.b(), threads)? - quantile(&mut starts, 0.5))
    }

    fn run(&self, a: u64, b: u64, threads: u32) -> anyhow::Result<f64> {
        let mut command = self.command();
        command.args(["-c", "-q", &format!("-t{threads}"), &a.to_string(), &b.to_string()]);
        let started_at = Instant::now();
        let status = command.stdout(Stdio::null()).status().context("start primesieve")?;
        let seconds = started_at.elapsed().as_secs_f64();
        ensure!(status.success(), "primesieve failed: {status}");
        Ok(seconds)
    }

    fn unpacked(root: &Path) -> anyhow::Result<Self> {
        let libraries = fs::read_dir(root.join("usr/lib")).context("look for its library")?;
        let libraries = libraries.filter_map(Result::ok).map(|entry| entry.path()).find(|path| path.is_dir());
        Self::at(root.join("usr/bin/primesieve"), libraries)
    }

    fn at(program: PathBuf, libraries: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut found = Self { program, libraries, version: String::new() };
        let output = found.command().arg("--version").output().context("start primesieve")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().next().filter(|line| line.starts_with("primesieve"));
        version
            .context("it does not say its version")?
            .split(',')
            .next()
            .unwrap_or_default()
            .clone_into(&mut found.version);
        Ok(found)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

/// Unpacks Debian's packages without installing them, which needs no rights.
fn fetch(root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    let depends = match run(root, "apt-cache", ["depends", PACKAGE]) {
        Ok(depends) => depends,
        Err(_) => {
            // Only root can.
            run(root, "apt-get", ["update", "-qq"])?;
            run(root, "apt-cache", ["depends", PACKAGE])?
        }
    };
    let library = depends.split_whitespace().find(|word| word.starts_with("libprimesieve"));
    let library = library.with_context(|| format!("{PACKAGE} names no library"))?;
    run(root, "apt-get", ["download", "-qq", PACKAGE, library])?;
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
