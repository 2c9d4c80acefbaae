//! Loads compiled bytes into a module that is ready to run.
//!
//! This module and `native/sys.rs` are the only ones with `unsafe` code.
#![expect(unsafe_code, reason = "to load compiled code is to trust it; only an `Artifact` is loaded")]

use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{Engine, ExternType, InstancePre, Linker, Module, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::run::{Guest, Preview1, Preview2};
use super::shortage;
use crate::failure::Reason;

/// A module may name what it imports at length, and messages of failures are remembered.
const MESSAGE_BYTES: usize = 2048;

/// Compiled code of this crate's own making: fresh from a compiler that it started, or from the cache with its checksum
/// verified. Nothing else makes one.
pub(super) struct Artifact(Vec<u8>);

impl Artifact {
    /// The standard output of a compiler that ended well.
    pub(super) fn fresh(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Bytes whose checksum was verified.
    pub(super) fn checked(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A program with its imports resolved; each task has an instance of its own.
pub(crate) enum Loaded {
    Module(InstancePre<Guest<Preview1>>),
    Component(CommandPre<Guest<Preview2>>),
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Module(_) => "Module",
            Self::Component(_) => "Component",
        })
    }
}

/// The functions that programs can import.
pub(super) struct Linkers {
    module: Linker<Guest<Preview1>>,
    component: ComponentLinker<Guest<Preview2>>,
}

impl std::fmt::Debug for Linkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Linkers")
    }
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut module = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut module, Guest::preview1)?;
        let mut component = ComponentLinker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        Ok(Self { module, component })
    }

    /// Loads compiled code and resolves its imports.
    pub(super) fn load(&self, engine: &Engine, artifact: &Artifact) -> Result<Loaded, Reason> {
        match Engine::detect_precompiled(artifact.bytes()) {
            Some(Precompiled::Module) => {
                // SAFETY: an `Artifact` is what this engine's own compiler has made, unchanged; it is copied.
                let module = unsafe { Module::deserialize(engine, artifact.bytes()) }.map_err(damaged)?;
                check_entry(&module)?;
                self.module.instantiate_pre(&module).map(Loaded::Module).map_err(bad)
            }
            Some(Precompiled::Component) => {
                // SAFETY: as above.
                let component = unsafe { Component::deserialize(engine, artifact.bytes()) }.map_err(damaged)?;
                let linked = self.component.instantiate_pre(&component).map_err(bad)?;
                CommandPre::new(linked).map(Loaded::Component).map_err(bad)
            }
            None => Err(Reason::sandbox("load a compiled module", "the compiler has made something else")),
        }
    }
}

fn check_entry(module: &Module) -> Result<(), Reason> {
    let is_entry = |of: &ExternType| of.func().is_some_and(|of| of.params().len() + of.results().len() == 0);
    if module.get_export("_start").as_ref().is_some_and(is_entry) {
        return Ok(());
    }
    let message = "it exports no function _start without parameters and results: it is a library, not a command";
    Err(Reason::BadModule { message: message.to_owned() })
}

fn bad(error: wasmtime::Error) -> Reason {
    if let Some(reason) = shortage(&error) {
        return reason;
    }
    let mut message = format!("{error:#}");
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    Reason::BadModule { message }
}

fn damaged(error: wasmtime::Error) -> Reason {
    Reason::sandbox("load a compiled module", format!("{error:#}"))
}
