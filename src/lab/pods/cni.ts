/**
 * The runtime's side of CNI: reads a node's network configuration and executes its plugins on the node, as libcni does for
 * containerd and CRI-O.
 *
 * Source: https://github.com/containernetworking/cni/blob/main/SPEC.md (1.1.0), sections 2 to 4
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { messageOf } from '../../base/errors.ts';

export interface NetworkConfig {
  name: string;
  cniVersion: string;
  plugins: Array<Record<string, unknown> & { type: string }>;
}

export interface CniResult extends Record<string, unknown> {
  ips?: Array<{ address: string; gateway?: string; interface?: number }>;
}

export interface CniCall {
  containerId: string;
  netns: string;
  ifname: string;
  /** CNI_ARGS. */
  args: Record<string, string>;
  /** By capability, given to the plugins that declare it. */
  capabilities?: Record<string, unknown>;
}

/** A plugin's own refusal, with the specification's code, or 0 when it did not even answer in its protocol. */
export class CniError extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.name = 'CniError';
    this.code = code;
  }
}

/** 11: try again later (specification, section "Error"). */
export const CNI_TRY_AGAIN = 11;
const TIMEOUT = 30_000;
const MAX_OUTPUT = 1 << 20;

/** The first configuration by name, as every runtime chooses. @throws CniError when there is none, or it is malformed */
export function readNetworkConfig(folder: string): NetworkConfig {
  let file: string | undefined;
  try {
    file = readdirSync(folder)
      .filter((name) => /\.(conf|conflist|json)$/.test(name))
      .sort()[0];
  } catch (error) {
    throw new CniError(CNI_TRY_AGAIN, `cni plugin not initialized: ${messageOf(error)}`);
  }
  if (!file)
    throw new CniError(CNI_TRY_AGAIN, `cni plugin not initialized: no network configuration in ${folder}`);
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as Record<string, unknown>;
  } catch (error) {
    throw new CniError(6, `${file}: ${messageOf(error)}`);
  }
  const plugins = Array.isArray(value.plugins) ? value.plugins : [value];
  const { name, cniVersion = '0.2.0' } = value;
  if (typeof name !== 'string' || typeof cniVersion !== 'string' || plugins.length === 0) {
    throw new CniError(7, `${file}: name, cniVersion and plugins are required`);
  }
  for (const plugin of plugins as Array<Record<string, unknown> | null>) {
    if (typeof plugin?.type !== 'string' || !/^[\w.-]+$/.test(plugin.type)) {
      throw new CniError(7, `${file}: every plugin needs a type that is a file name`);
    }
  }
  return { name, cniVersion, plugins: plugins as NetworkConfig['plugins'] };
}

/** Plugins on one node. `enter`: the command prefix that runs a program there. */
export class CniRuntime {
  readonly #enter: string[];
  readonly #binDir: string;

  constructor(enter: string[], binDir = '/opt/cni/bin') {
    this.#enter = enter;
    this.#binDir = binDir;
  }

  /** The whole chain, each plugin with the result of the one before. @throws CniError; the caller then calls {@link del} */
  async add(config: NetworkConfig, call: CniCall): Promise<CniResult> {
    let result: CniResult | undefined;
    for (const plugin of config.plugins) {
      result = (await this.#execute('ADD', config, plugin, call, result)) ?? result;
    }
    return result ?? {};
  }

  /** The chain in reverse, with the result of ADD. @throws CniError */
  async del(config: NetworkConfig, call: CniCall, result: CniResult | undefined): Promise<void> {
    for (const plugin of config.plugins.toReversed())
      await this.#execute('DEL', config, plugin, call, result);
  }

  async #execute(
    command: 'ADD' | 'DEL',
    config: NetworkConfig,
    plugin: NetworkConfig['plugins'][number],
    call: CniCall,
    prevResult: CniResult | undefined,
  ): Promise<CniResult | undefined> {
    const declared = (plugin.capabilities ?? {}) as Record<string, boolean>;
    const runtimeConfig = Object.fromEntries(
      Object.entries(call.capabilities ?? {}).filter(([capability]) => declared[capability] === true),
    );
    const stdin = {
      ...plugin,
      name: config.name,
      cniVersion: config.cniVersion,
      ...(Object.keys(runtimeConfig).length > 0 && { runtimeConfig }),
      ...(prevResult && { prevResult }),
    };
    const program = `${this.#binDir}/${plugin.type}`;
    const { code, stdout, stderr } = await run([...this.#enter, program], JSON.stringify(stdin), {
      PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin',
      CNI_COMMAND: command,
      CNI_CONTAINERID: call.containerId,
      CNI_NETNS: call.netns,
      CNI_IFNAME: call.ifname,
      CNI_ARGS: Object.entries(call.args)
        .map(([key, value]) => `${key}=${value}`)
        .join(';'),
      CNI_PATH: this.#binDir,
    });
    const answer = parse(stdout);
    if (code !== 0) {
      const text = [answer?.msg, answer?.details]
        .filter((part) => typeof part === 'string' && part)
        .join(': ');
      throw new CniError(
        typeof answer?.code === 'number' ? answer.code : 0,
        `plugin type="${plugin.type}" failed (${command.toLowerCase()}): ${text || stderr.trim() || `exit code ${code}`}`,
      );
    }
    if (command === 'ADD' && !answer) {
      throw new CniError(
        6,
        `plugin type="${plugin.type}" failed (add): its result is not JSON: ${stdout.slice(0, 200)}`,
      );
    }
    return answer;
  }
}

function parse(text: string): (CniResult & { code?: unknown; msg?: unknown; details?: unknown }) | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as CniResult) : undefined;
  } catch {
    return undefined;
  }
}

function run(
  argv: string[],
  stdin: string,
  env: Record<string, string>,
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), { env, stdio: 'pipe' });
    const out = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].setEncoding('utf8').on('data', (chunk: string) => {
        if (out[stream].length < MAX_OUTPUT) out[stream] += chunk;
      });
    }
    child.stdin.on('error', () => {}); // it may end without reading
    child.stdin.end(stdin);
    // Not spawn's own timeout: that one goes on when the program is not there.
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(new CniError(0, `cannot execute ${argv.join(' ')}: ${error.message}`));
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 137, ...out });
    });
  });
}
