"""`holdfast completion`: the script that makes a shell ask us at a Tab.

The scripts are those of click, and so is what they and we say to each other. Each is kept quiet:
the program may be gone, and its shell would say so at every Tab.
"""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from holdfast.cli.app import COMPLETE_VARIABLE, holdfast

_BASH = r"""
%(complete_func)s() {
    local IFS=$'\n' rest="$COMP_LINE" piece answer type value
    local -a words=()
    # bash parts words at : and =, also in URLs and in the names of functions: join them again.
    for piece in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} == 0 || $rest == [[:blank:]]* ]]; then
            rest="${rest#"${rest%%%%[![:blank:]]*}"}"
            words+=("$piece")
        else
            words[-1]+="$piece"
        fi
        rest="${rest#"$piece"}"
    done
    # Of the last word it replaces only what comes after the last of them.
    local last="${words[-1]}" breaks="${COMP_WORDBREAKS//[^:=]/}" kept=""
    [[ -n $breaks ]] && kept="${last%%"${last##*[$breaks]}"}" && kept="${kept#-*=}"

    answer=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                # Not every name can be typed as it is: <locals> would be a redirection.
                printf -v value %%q "${value#"$kept"}"
                COMPREPLY+=("$value")
                ;;
        esac
    done <<< "$answer"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ASKED = "holdfast)"
_KINDS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(list(_KINDS)))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    In bash and zsh: eval "$(holdfast completion bash)". In fish: holdfast completion fish | source.
    At a Tab the shell offers commands, options, ids of tasks, workers, queues and states.
    """
    maker = _KINDS[shell](holdfast, {}, "holdfast", COMPLETE_VARIABLE)
    if shell == "bash":
        script = _BASH.lstrip() % maker.source_vars()
    else:
        script = maker.source().replace(_ASKED, f"{_ASKED[:-1]} 2>/dev/null)")
        # fish sorts what it is offered, and the newest task comes first.
        script = script.replace("complete --no-files", "complete --keep-order --no-files")
    click.echo(script)
