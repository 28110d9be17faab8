/**
 * The plugin and its configuration, where runtimes look for them. Each file appears by an atomic rename, the configuration
 * last and only when the agent is ready: a kubelet takes its presence for a working network.
 */
import { chmodSync, copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { messageOf, WeftError } from '../base/errors.ts';
import { CNI_VERSIONS } from './types.ts';

/** The name of the binary, and the `type` of the configuration. */
export const PLUGIN_NAME = 'weft-cni';
export const CONFLIST_NAME = '10-weft.conflist';

/** What is compiled into the plugin (cni/weft-cni.c). */
const DEFAULT_SOCKET = '/run/weft/cni.sock';
const DEFAULT_SPOOL = '/var/lib/weft/cni-spool';

export interface ConflistOptions {
  /** Default `weft`. */
  network?: string;
  socket: string;
  spoolDir: string;
}

/**
 * The network configuration list. `cniVersion` 1.0.0 is what podman 4 and containerd 1.6 know at most; a libcni from 1.1 on
 * reads `cniVersions` and picks the newest that it speaks, which is what brings STATUS and GC.
 */
export function conflist({ network = 'weft', socket, spoolDir }: ConflistOptions): object {
  return {
    cniVersion: '1.0.0',
    cniVersions: CNI_VERSIONS,
    name: network,
    plugins: [
      {
        type: PLUGIN_NAME,
        capabilities: { ips: true, mac: true },
        ...(socket !== DEFAULT_SOCKET && { weftSocket: socket }),
        ...(spoolDir !== DEFAULT_SPOOL && { weftSpool: spoolDir }),
      },
    ],
  };
}

/** Put the plugin in place, unless it is there already. Returns its path. @throws WEFT_CNI_INSTALL_FAILED */
export function installPlugin(binary: string, binDir: string): string {
  const target = path.join(binDir, PLUGIN_NAME);
  return attempt(`${binary} to ${target}`, () => {
    const wanted = readFileSync(binary);
    if (readOr(target)?.equals(wanted)) return target;
    mkdirSync(binDir, { recursive: true, mode: 0o755 });
    // A runtime may be executing the old one: that inode stays until it is done.
    const temporary = `${target}.${process.pid}`;
    copyFileSync(binary, temporary);
    chmodSync(temporary, 0o755);
    renameSync(temporary, target);
    return target;
  });
}

/** Write the configuration, unless it is there already. Returns its path. @throws WEFT_CNI_INSTALL_FAILED */
export function installConflist(confDir: string, options: ConflistOptions): string {
  const target = path.join(confDir, CONFLIST_NAME);
  return attempt(target, () => {
    const wanted = Buffer.from(`${JSON.stringify(conflist(options), null, 2)}\n`);
    if (readOr(target)?.equals(wanted)) return target;
    mkdirSync(confDir, { recursive: true, mode: 0o755 });
    // Hidden, and without an ending that runtimes take for a configuration.
    const temporary = path.join(confDir, `.${CONFLIST_NAME}.${process.pid}`);
    writeFileSync(temporary, wanted, { mode: 0o644 });
    renameSync(temporary, target);
    return target;
  });
}

/** Tell runtimes that this node's network is gone. The plugin stays: it takes the DELs of pods that are still there. */
export function removeConflist(confDir: string): void {
  attempt(confDir, () => rmSync(path.join(confDir, CONFLIST_NAME), { force: true }));
}

function readOr(file: string): Buffer | undefined {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}

function attempt<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new WeftError('WEFT_CNI_INSTALL_FAILED', `cannot install ${what}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
