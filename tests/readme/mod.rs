//! README's console blocks as tests: `<!-- anywhere -->` and `<!-- guest -->` before a block say where it runs. What
//! the page shows is what the commands print.

use std::path::Path;
use std::process::Command;

/// One command of a block, and the lines shown below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is typed, without `$ ` and without `sudo `: the tests run as root.
    pub command: String,
    /// What is shown.
    pub output: String,
}

/// The commands of every console block marked `<!-- {mark} -->`, in the page's order.
pub fn blocks(readme: &str, mark: &str) -> Vec<Shown> {
    let mark = format!("<!-- {mark} -->\n```console\n");
    let mut shown: Vec<Shown> = Vec::new();
    for block in readme.split(&mark).skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            match (line.strip_prefix("$ "), shown.last_mut()) {
                (Some(command), _) => {
                    let command = command.strip_prefix("sudo ").unwrap_or(command).to_owned();
                    shown.push(Shown {
                        command,
                        output: String::new(),
                    });
                }
                (None, Some(last)) => {
                    last.output.push_str(line);
                    last.output.push('\n');
                }
                (None, None) => panic!("a console block of README begins with output: {line}"),
            }
        }
    }
    assert!(!shown.is_empty(), "README has no console block marked {mark}");
    shown
}

/// Runs the commands in one bash, in `directory` and with `bin` first in PATH, and returns what each printed, on both
/// streams together.
pub fn run(commands: &[Shown], directory: &Path, bin: &Path) -> Vec<String> {
    const MARK: &str = "=== README ===";
    let mut script = String::new();
    for shown in commands {
        // The status that `echo $?` shows is the command's before it, not that of the mark.
        script.push_str(&format!(
            "{{ s=$?; printf '{MARK}\\n'; (exit $s); }}\n{}\n",
            shown.command
        ));
    }
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env("NO_COLOR", "1")
        .env(
            "PATH",
            format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()),
        )
        .current_dir(directory)
        .output()
        .expect("bash");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let parts: Vec<String> = text
        .split(&format!("{MARK}\n"))
        .skip(1)
        .map(str::to_owned)
        .collect();
    assert_eq!(parts.len(), commands.len(), "{text}");
    parts
}
