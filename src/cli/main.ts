/**
 * `weft`: one command line for everything. `weft agent` goes around the command-line library, which would cost each agent
 * 7 MB for as long as it runs.
 */
import { parseArgs } from 'node:util';
import { ApiError } from '../api/errors.ts';
import { isWeftError } from '../base/errors.ts';

/** One line that names the error, one that says what to do; a stack only for a fault of ours or with WEFT_DEBUG. */
export function explain(error: unknown): string {
  if (isWeftError(error)) {
    const text = `weft: ${error.code}: ${error.message}\n      ${error.hint}`;
    return process.env.WEFT_DEBUG ? `${text}\n${error.stack}` : text;
  }
  if (error instanceof ApiError)
    return `weft: the API server refused: ${error.message} (${error.reason || error.code})`;
  return `weft: WEFT_INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
}

/** The file of `agent --config FILE`, and nothing else on the line; undefined for anything that needs the library. */
function agentConfig(args: string[]): string | undefined {
  if (args[0] !== 'agent') return undefined;
  try {
    return parseArgs({ args: args.slice(1), options: { config: { type: 'string' } } }).values.config;
  } catch {
    return undefined;
  }
}

if (import.meta.main) {
  try {
    const config = agentConfig(process.argv.slice(2));
    if (config !== undefined) await (await import('../agent/main.ts')).run(config);
    else await (await import('./program.ts')).program().parseAsync();
  } catch (error) {
    // The library has said what is wrong, or was asked for help.
    const { exitCode } = error as { exitCode?: unknown };
    if (error instanceof Error && error.name === 'CommanderError') process.exitCode = Number(exitCode ?? 1);
    else {
      process.stderr.write(`${explain(error)}\n`);
      // A server that failed half-way must not live on by what it had opened already.
      process.exit(1);
    }
  }
}
