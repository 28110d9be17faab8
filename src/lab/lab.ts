/**
 * Labs, for the command line and for tests: make, look at, enter and remove clusters on this machine. Everything that needs to go
 * on after the call is the daemon's.
 */
import { type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { NODES, PODS } from '../api/client.ts';
import { isNotFound } from '../api/errors.ts';
import type { Node, Pod } from '../api/types.ts';
import { isWeftError, WeftError } from '../base/errors.ts';
import { HttpApiClient } from '../informers/http-client.ts';
import { loadKubeconfig } from '../informers/kubeconfig.ts';
import { callDaemon, type Progress } from './control.ts';
import type { DaemonStatus } from './daemon.ts';
import { HOME, type LabPaths, labPaths } from './paths.ts';
import { type ContainerFolders, ContainerRun, lastNumber, logFile } from './pods/container.ts';
import { containerEnterArgs } from './pods/pod-container.ts';
import { enterArgs, isAlive, spawnDetached, startTimeOf } from './processes.ts';
import type { Reachability } from './reachability.ts';
import { type LabRecord, mustReadRecord, readRecord, writeRecord } from './record.ts';
import { type LabOptions, labSpec, type Topology, topologyOf } from './topology.ts';

export { type Destroyed, destroyLab, labTraces, type Traces } from './destroy.ts';
export { renderReachability } from './reachability.ts';
export { listLabs } from './record.ts';

const MAIN = path.join(HOME, 'src/cli/main.ts');
const DAEMON_START_MS = 10_000;

export interface CreatedLab {
  /** False: it was there already, with these options. */
  created: boolean;
  kubeconfig: string;
  status: DaemonStatus;
  topology: Topology;
}

/**
 * Make the lab, or bring back to work what is there of it with the same options; resolves when all its nodes are Ready. With
 * `probe`, the pods that {@link labReachability} needs are made on the way.
 * @throws WEFT_LAB_DIFFERS, WEFT_LAB_DAEMON_FAILED, WEFT_LAB_NOT_READY, WEFT_BAD_CONFIG
 */
export async function createLab(
  options: LabOptions & { probe?: boolean; readyTimeout?: number },
  progress: Progress = () => {},
): Promise<CreatedLab> {
  const { probe, readyTimeout, ...asked } = options;
  const spec = labSpec(asked);
  const paths = labPaths(spec.name);
  const before = readRecord(paths);
  if (before && !isDeepStrictEqual(before.spec, spec)) {
    throw new WeftError('WEFT_LAB_DIFFERS', `lab ${spec.name} exists with other options`, {
      details: { exists: before.spec, asked: spec },
    });
  }
  const record: LabRecord = before ?? {
    version: 1,
    spec,
    nodes: topologyOf(spec).nodes.map(({ name }) => name),
    hostPort: 0,
    createdAt: new Date().toISOString(),
  };
  if (!before) writeRecord(paths, record);
  await startDaemon(spec.name);
  const status = await callDaemon<DaemonStatus>(
    paths.socket,
    { op: 'ready', probe: probe === true, ...(readyTimeout !== undefined && { timeout: readyTimeout }) },
    progress,
  );
  return {
    created: before === undefined,
    kubeconfig: paths.kubeconfig,
    status,
    topology: topologyOf(spec, status.record.nodes),
  };
}

/** Start the lab's daemon unless it runs; it takes over whatever runs of the lab. @throws WEFT_LAB_DAEMON_FAILED */
export async function startDaemon(name: string): Promise<{ started: boolean }> {
  const paths = labPaths(name);
  mustReadRecord(paths);
  if (await daemonStatus(paths)) return { started: false };
  mkdirSync(paths.run, { recursive: true, mode: 0o700 });
  const log = `${paths.logs}/daemon.log`;
  const child = spawnDetached(
    [process.execPath, '--disable-warning=ExperimentalWarning', MAIN, 'lab-daemon', name],
    {
      lab: name,
      role: 'daemon',
      log,
    },
  );
  const pid = child.pid ?? 0;
  const id = { pid, startTime: startTimeOf(pid) ?? '' };
  const end = Date.now() + DAEMON_START_MS;
  while (!(await daemonStatus(paths))) {
    // Another one may have been quicker: then ours ends, and that one answers.
    if (Date.now() > end || (!isAlive(id) && !(await daemonStatus(paths)))) {
      throw new WeftError(
        'WEFT_LAB_DAEMON_FAILED',
        `the daemon of lab ${name} did not start; its log is ${log}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return { started: true };
}

async function daemonStatus(paths: LabPaths): Promise<DaemonStatus | undefined> {
  if (!existsSync(paths.socket)) return undefined;
  try {
    return await callDaemon<DaemonStatus>(paths.socket, { op: 'status' });
  } catch (error) {
    if (isWeftError(error, 'WEFT_LAB_DAEMON_FAILED')) return undefined;
    throw error;
  }
}

export interface LabStatus {
  name: string;
  record: LabRecord;
  topology: Topology;
  kubeconfig: string;
  /** Absent: it does not run; the rest of the lab may. */
  daemon?: DaemonStatus;
  /** Absent: the API does not answer. */
  nodes?: Node[];
  pods?: Pod[];
}

/** @throws WEFT_LAB_NOT_FOUND */
export async function labStatus(name: string): Promise<LabStatus> {
  const paths = labPaths(name);
  const record = mustReadRecord(paths);
  const daemon = await daemonStatus(paths);
  const status: LabStatus = {
    name,
    record,
    topology: topologyOf(record.spec, record.nodes),
    kubeconfig: paths.kubeconfig,
    ...(daemon && { daemon }),
  };
  try {
    const client = await labClient(name);
    const [nodes, pods] = await Promise.all([client.list(NODES), client.list(PODS)]);
    return { ...status, nodes: nodes.items, pods: pods.items };
  } catch {
    return status;
  }
}

/** Path of the administrator's kubeconfig. @throws WEFT_LAB_NOT_FOUND */
export function labKubeconfig(name: string): string {
  const paths = labPaths(name);
  mustReadRecord(paths);
  if (!existsSync(paths.kubeconfig)) {
    throw new WeftError(
      'WEFT_LAB_NOT_READY',
      `lab ${name} has no kubeconfig yet: its API server has not started`,
    );
  }
  return paths.kubeconfig;
}

/** The API as its administrator. @throws WEFT_LAB_NOT_FOUND */
export async function labClient(name: string): Promise<HttpApiClient> {
  return new HttpApiClient(await loadKubeconfig(labKubeconfig(name)), {
    userAgent: 'weft',
    timeoutMs: 10_000,
  });
}

/** Measured anew, by real packets. @throws WEFT_LAB_NOT_FOUND, WEFT_LAB_DAEMON_FAILED, WEFT_LAB_NOT_READY */
export async function labReachability(name: string): Promise<Reachability> {
  const paths = labPaths(name);
  mustReadRecord(paths);
  return await callDaemon<Reachability>(paths.socket, { op: 'reachability' });
}

// --- nodes ---

/** A new machine joins. Its name decides subnet and addresses: `node-<number>`. */
export async function addNode(name: string, node: string): Promise<void> {
  await callDaemon(labPaths(name).socket, { op: 'add-node', node });
}

/** The machine is unplugged and thrown away: its pods and its Node object go too. */
export async function removeNode(name: string, node: string): Promise<void> {
  await callDaemon(labPaths(name).socket, { op: 'remove-node', node });
}

/** Another machine with the same name and addresses, and nothing of what the old one knew. */
export async function replaceNode(name: string, node: string): Promise<void> {
  await removeNode(name, node);
  await addNode(name, node);
}

/** Resolves when all nodes are Ready. @throws WEFT_LAB_NOT_READY */
export async function labReady(name: string, timeout = 30_000): Promise<DaemonStatus> {
  return await callDaemon<DaemonStatus>(labPaths(name).socket, { op: 'ready', timeout });
}

// --- going in ---

export interface RunResult {
  /** 128 + n for a program ended by signal n. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface ExecOptions {
  namespace?: string;
  container?: string;
  /** `inherit`: the terminal's own, and nothing is collected. Default: collected. */
  stdio?: 'inherit' | 'collect';
  stdin?: string;
}

/** Run a program in a container of a pod. @throws WEFT_LAB_NOT_FOUND, WEFT_POD_NOT_RUNNING, ApiError */
export async function execInPod(
  name: string,
  pod: string,
  argv: string[],
  options: ExecOptions = {},
): Promise<RunResult> {
  const { folders, container } = await findContainer(name, pod, options);
  const pid = ContainerRun.last(folders)?.initPid;
  if (pid === undefined) {
    throw new WeftError('WEFT_POD_NOT_RUNNING', `container ${container} of pod ${pod} does not run`);
  }
  return await runProgram([...containerEnterArgs(pid), ...argv], options);
}

/** Run a program on a node. */
export async function nodeExec(
  name: string,
  node: string,
  argv: string[],
  options: ExecOptions = {},
): Promise<RunResult> {
  const paths = labPaths(name);
  if (!mustReadRecord(paths).nodes.includes(node)) {
    throw new WeftError('WEFT_BAD_CONFIG', `lab ${name} has no node ${node}`);
  }
  return await runProgram([...enterArgs(paths.node(node)), ...argv], options);
}

/** Run a program on the host beyond the router. */
export async function outsideExec(
  name: string,
  argv: string[],
  options: ExecOptions = {},
): Promise<RunResult> {
  const paths = labPaths(name);
  mustReadRecord(paths);
  return await runProgram(['nsenter', `--net=${paths.outsideNetns}`, '--', ...argv], options);
}

/**
 * The file that a container's output goes to. `previous`: of the run before.
 * @throws WEFT_POD_NOT_RUNNING when there is none
 */
export async function podLogFile(
  name: string,
  pod: string,
  options: { namespace?: string; container?: string; previous?: boolean } = {},
): Promise<string> {
  const { folders, container } = await findContainer(name, pod, options);
  const number = lastNumber(folders) - (options.previous ? 1 : 0);
  const file = logFile(folders, number);
  if (number < 0 || !existsSync(file)) {
    const what = options.previous ? 'no run before this one' : 'not started yet';
    throw new WeftError('WEFT_POD_NOT_RUNNING', `container ${container} of pod ${pod} has ${what}`);
  }
  return file;
}

/**
 * What a container wrote, in pieces as they are read; with `follow`, on and on until the signal aborts or the container is over.
 */
export async function* podLogs(
  name: string,
  pod: string,
  options: {
    namespace?: string;
    container?: string;
    previous?: boolean;
    follow?: boolean;
    signal?: AbortSignal;
  } = {},
): AsyncGenerator<Buffer> {
  const { open } = await import('node:fs/promises');
  const { folders } = await findContainer(name, pod, options);
  const file = await open(await podLogFile(name, pod, options));
  try {
    for (;;) {
      // Asked before reading: what was written before its end is read after.
      const over = !options.follow || options.previous || ContainerRun.last(folders)?.initPid === undefined;
      for (;;) {
        const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(65_536));
        if (bytesRead === 0) break;
        yield buffer.subarray(0, bytesRead);
      }
      if (over || options.signal?.aborted) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } finally {
    await file.close();
  }
}

async function findContainer(
  name: string,
  podName: string,
  { namespace = 'default', container }: { namespace?: string; container?: string },
): Promise<{ folders: ContainerFolders; container: string }> {
  const paths = labPaths(name);
  const client = await labClient(name);
  let pod: Pod;
  try {
    pod = await client.get(PODS, { name: podName, namespace });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new WeftError('WEFT_POD_NOT_RUNNING', `there is no pod ${namespace}/${podName}`, { cause: error });
  }
  const names = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map((each) => each.name);
  const chosen = container ?? names[0]!;
  if (!names.includes(chosen)) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `pod ${podName} has no container ${chosen}; it has ${names.join(', ')}`,
    );
  }
  const uid = pod.metadata.uid!;
  return {
    container: chosen,
    folders: { run: `${paths.podRun(uid)}/${chosen}`, logs: `${paths.podState(uid)}/${chosen}` },
  };
}

/** @throws WEFT_BAD_CONFIG when the program cannot be started */
function runProgram(argv: string[], { stdio = 'collect', stdin }: ExecOptions): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const options: SpawnOptions = { stdio: stdio === 'inherit' ? 'inherit' : 'pipe' };
    const child = spawn(argv[0]!, argv.slice(1), options);
    const result = { stdout: '', stderr: '' };
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      result.stdout += chunk;
    });
    child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
      result.stderr += chunk;
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(stdin ?? '');
    child.once('error', (error) =>
      reject(new WeftError('WEFT_BAD_CONFIG', `cannot run ${argv[0]}: ${error.message}`)),
    );
    child.once('close', (code, signal) =>
      resolve({ code: code ?? (signal ? 128 + os.constants.signals[signal] : 1), ...result }),
    );
  });
}
