//! Tells Zed how to start `midc lsp`. Colors come from the server's semantic tokens.

use zed_extension_api::{self as zed, Command, LanguageServerId, Result, Worktree};

struct Midc;

impl zed::Extension for Midc {
    fn new() -> Self {
        Self
    }

    fn language_server_command(&mut self, _: &LanguageServerId, worktree: &Worktree) -> Result<Command> {
        let command = worktree
            .which("midc")
            .ok_or("midc is not in $PATH; install it with `cargo install midc`")?;
        Ok(Command { command, args: vec!["lsp".to_owned()], env: worktree.shell_env() })
    }
}

zed::register_extension!(Midc);
