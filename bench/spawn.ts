/**
 * Execute a program and say how long it took, from just before posix_spawn(3) to just after waitpid(2).
 *
 * `child_process.spawnSync` costs several milliseconds of its own (it makes an event loop for every call), which would drown
 * a plugin that takes one. Here everything a call needs is prepared before the clock starts: the pipes, with stdin written
 * and closed already, and the file actions. What remains of our own is measured by the same function on `/bin/true`, and
 * reported beside the results as the floor.
 */
import { closeSync, readSync, writeSync } from 'node:fs';
import koffi from 'koffi';

const libc = koffi.load(null);
const pipe2 = libc.func('int pipe2(void*, int)') as unknown as (fds: Int32Array, flags: number) => number;
const posixSpawn = libc.func(
  'int posix_spawn(void*, const char*, void*, void*, const char**, const char**)',
) as unknown as (
  pid: Int32Array,
  path: string,
  actions: Uint8Array,
  attributes: null,
  argv: Array<string | null>,
  env: Array<string | null>,
) => number;
const actionsInit = libc.func('int posix_spawn_file_actions_init(void*)') as unknown as (
  actions: Uint8Array,
) => number;
const actionsDup2 = libc.func('int posix_spawn_file_actions_adddup2(void*, int, int)') as unknown as (
  actions: Uint8Array,
  from: number,
  to: number,
) => number;
const actionsDestroy = libc.func('int posix_spawn_file_actions_destroy(void*)') as unknown as (
  actions: Uint8Array,
) => number;
const waitpid = libc.func('int waitpid(int, void*, int)') as unknown as (
  pid: number,
  status: Int32Array,
  options: number,
) => number;

const O_CLOEXEC = 0o2000000;
const EINTR = 4;
/** What a pipe holds (pipe(7)), and so the most that a program may read or write here. */
const PIPE_CAPACITY = 65_536;
/** posix_spawn_file_actions_t is 80 bytes in glibc and less in musl. */
const FILE_ACTIONS_SIZE = 256;

export interface Execution {
  program: string;
  args?: string[];
  env?: Record<string, string>;
  /** Less than 64 KiB. */
  stdin?: string;
}

export interface Executed {
  /** Wall time in microseconds. */
  micros: number;
  /** Exit code; 128 + number of the signal for a program that was killed. */
  code: number;
  stdout: string;
  stderr: string;
}

/** Blocks the calling thread until the program has ended. @throws Error when it cannot be started */
export function execute(execution: Execution): Executed {
  const stdin = Buffer.from(execution.stdin ?? '');
  if (stdin.length >= PIPE_CAPACITY) throw new Error(`stdin of ${stdin.length} bytes does not fit a pipe`);
  const [inRead, inWrite] = pipe();
  const [outRead, outWrite] = pipe();
  const [errRead, errWrite] = pipe();
  const actions = Buffer.alloc(FILE_ACTIONS_SIZE);
  check('posix_spawn_file_actions_init', actionsInit(actions));
  let open = [inRead, outWrite, errWrite];
  try {
    check('adddup2', actionsDup2(actions, inRead, 0));
    check('adddup2', actionsDup2(actions, outWrite, 1));
    check('adddup2', actionsDup2(actions, errWrite, 2));
    if (stdin.length > 0) writeSync(inWrite, stdin);
    closeSync(inWrite);
    const argv = [execution.program, ...(execution.args ?? []), null];
    const env = [...Object.entries(execution.env ?? {}).map(([key, value]) => `${key}=${value}`), null];
    const pid = new Int32Array(1);
    const status = new Int32Array(1);

    const began = process.hrtime.bigint();
    const spawned = posixSpawn(pid, execution.program, actions, null, argv, env);
    if (spawned === 0) {
      while (waitpid(pid[0]!, status, 0) < 0 && koffi.errno() === EINTR);
    }
    const ended = process.hrtime.bigint();

    check(`posix_spawn(${execution.program})`, spawned);
    for (const fd of open) closeSync(fd); // else the reads below would find no end
    open = [];
    const code = (status[0]! & 0x7f) === 0 ? (status[0]! >> 8) & 0xff : 128 + (status[0]! & 0x7f);
    return { micros: Number(ended - began) / 1000, code, stdout: drain(outRead), stderr: drain(errRead) };
  } finally {
    for (const fd of [...open, outRead, errRead]) closeSync(fd);
    actionsDestroy(actions);
  }
}

function pipe(): [number, number] {
  const fds = new Int32Array(2);
  if (pipe2(fds, O_CLOEXEC) !== 0) throw new Error(`pipe2: errno ${koffi.errno()}`);
  return [fds[0]!, fds[1]!];
}

function drain(fd: number): string {
  const chunks: Buffer[] = [];
  for (;;) {
    const chunk = Buffer.alloc(PIPE_CAPACITY);
    const length = readSync(fd, chunk);
    if (length === 0) return Buffer.concat(chunks).toString();
    chunks.push(chunk.subarray(0, length));
  }
}

/** posix_spawn and its kin return the error number instead of setting errno. */
function check(call: string, result: number): void {
  if (result !== 0) throw new Error(`${call}: errno ${result}`);
}
