//! The variables of the environment that a job must not set for a program that workers bring by name. Such a program
//! runs outside the cage: with one of these a job could run anything there, such as a file that another of its programs
//! has written, or what it sends as stdin.

/// Starts of names by which loaders, shells, interpreters and libraries find code.
#[rustfmt::skip]
const STARTS: &[&str] = &[
    "BASH_", "BUNDLE_", "COMPlus_", "CORECLR_", "DOTNET_", "DYLD_", "ERL_", "GEM_", "GIT_", "GLIBC_", "GUILE_", "JAVA_",
    "LD_", "LUA_", "MONO_", "OMPI_", "OPENSSL_", "PERL", "PYTHON", "RUBY", "XDG_",
];

/// Ends of names by which libraries find plugins.
const ENDS: &[&str] = &["_PLUGIN_PATH", "_PRELOAD"];

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "BASHOPTS", "BROWSER", "CLASSPATH", "CUDA_INJECTION64_PATH", "EDITOR", "ENV", "GCONV_PATH", "GNUMAKEFLAGS",
    // Interpreters run files of the home directory at their start.
    "HOME",
    "IPYTHONDIR", "JAVACMD", "JDK_JAVA_OPTIONS", "JULIA_DEPOT_PATH", "JULIA_LOAD_PATH", "JULIA_PROJECT", "LESSCLOSE",
    "LESSOPEN", "LOCPATH", "MAKEFILES", "MAKEFLAGS", "NODE_OPTIONS", "NODE_PATH", "OMP_TOOL_LIBRARIES", "PAGER", "PATH",
    "PHPRC", "PHP_INI_SCAN_DIR", "PROMPT_COMMAND", "PS4", "R_DEFAULT_PACKAGES", "R_ENVIRON", "R_ENVIRON_USER", "R_HOME",
    "R_LIBS", "R_LIBS_SITE", "R_LIBS_USER", "R_PROFILE", "R_PROFILE_USER", "SHELL", "SHELLOPTS", "TAR_OPTIONS",
    "VISUAL", "ZDOTDIR", "_JAVA_OPTIONS",
];

/// Variables of an interpreter that lead to no code.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONIOENCODING",
    "PYTHONMALLOC", "PYTHONNOUSERSITE", "PYTHONOPTIMIZE", "PYTHONSAFEPATH", "PYTHONTRACEMALLOC", "PYTHONUNBUFFERED",
    "PYTHONUTF8", "PYTHONVERBOSE", "PYTHON_CPU_COUNT", "PYTHON_GIL", "PYTHON_JIT",
];

/// Whether a variable makes a loader, shell, interpreter or library run code that the program's command does not name.
pub(super) fn steers_interpreters(name: &str) -> bool {
    let is_listed = NAMES.contains(&name)
        || STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end));
    is_listed && !HARMLESS.contains(&name)
}
