//! `divvy token`.

use std::io;

use service::access;

use crate::arguments::{NewToken, Token, TokenCommand};
use crate::failure::Failure;
use crate::print::print_line;

pub(crate) fn run(arguments: &Token) -> Result<(), Failure> {
    let TokenCommand::New(new) = &arguments.command;
    // The token is nowhere else: the file has its hash only.
    print_line(&add(new)?).map_err(|failure| {
        let (name, file) = (&new.name, new.file.display());
        Failure::Failed(format!("{failure}: nobody has got the token, so remove its entry {name:?} from {file}"))
    })
}

fn add(new: &NewToken) -> Result<String, Failure> {
    access::add(&new.file, &new.name, &new.rights()?).map_err(|error| {
        let is_of_system = error.chain().any(|cause| cause.is::<io::Error>());
        let message = format!("{error:#}");
        if is_of_system { Failure::Failed(message) } else { Failure::Usage(message) }
    })
}
