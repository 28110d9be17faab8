/**
 * Mount and UTS namespaces of nodes, and UTS and IPC namespaces of pods: made by unshare(1), kept alive by being bound to files,
 * so that they need no process.
 *
 * A file of a mount namespace can only be bound below a mount that does not propagate (mount_namespaces(7)); that is what
 * `namespaces` of the lab is for. A node's mounts are slaves of the host's: what is bound on the host later, namely the network
 * namespaces of new pods, appears on the node, and nothing that the node mounts appears on the host. For that /run/netns has to be
 * a shared mount, as `ip netns add` makes it.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { messageOf, WeftError } from '../base/errors.ts';
import { type LabPaths, NETNS, type NodePaths, RUN, STATE } from './paths.ts';

const exec = promisify(execFile);

async function shell(what: string, script: string, args: string[]): Promise<void> {
  try {
    await exec('sh', ['-eu', '-c', script, 'sh', ...args], { timeout: 20_000 });
  } catch (error) {
    const stderr = (error as { stderr?: string }).stderr?.trim();
    throw new WeftError('WEFT_LAB_NAMESPACE_FAILED', `cannot ${what}: ${stderr || messageOf(error)}`, {
      cause: error,
    });
  }
}

interface MountPoint {
  path: string;
  shared: boolean;
}

/** Mounts of this process's mount namespace (proc_pid_mountinfo(5)), in order. */
export function mountPoints(): MountPoint[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [left] = line.split(' - ');
      const fields = left!.split(' ');
      return {
        path: fields[4]!.replace(/\\([0-7]{3})/g, (_, octal: string) =>
          String.fromCharCode(Number.parseInt(octal, 8)),
        ),
        shared: fields.slice(6).some((field) => field.startsWith('shared:')),
      };
    });
}

/** /run/netns is a shared mount of its own, and the lab has its private mount. Idempotent. */
export async function ensureMounts(paths: LabPaths): Promise<void> {
  mkdirSync(NETNS, { recursive: true });
  mkdirSync(paths.namespaces, { recursive: true, mode: 0o700 });
  const mounts = mountPoints();
  const shared = mounts.some((mount) => mount.path === NETNS && mount.shared);
  const own = mounts.some((mount) => mount.path === paths.namespaces);
  if (shared && own) return;
  // As ip-netns does it; recursively, for the namespaces that are there must stay visible. Others may be at it too, hence the lock.
  await shell(
    "make the lab's mounts",
    `exec 9<"$1"; flock 9
     if ! grep -q " $1 [^-]*shared:" /proc/self/mountinfo; then
       mount --make-shared "$1" 2>/dev/null || { mount --rbind "$1" "$1"; mount --make-shared "$1"; }
     fi
     if ! grep -q " $2 " /proc/self/mountinfo; then mount --bind "$2" "$2"; mount --make-private "$2"; fi`,
    [NETNS, paths.namespaces],
  );
}

/**
 * The node's mount and UTS namespaces, with its own /run/weft, /var/lib/weft, /etc/cni/net.d and /opt/cni/bin, and with /sys of
 * its network namespace. Its network namespace must be there. Idempotent: what a crash left half-made is made anew.
 * @throws WEFT_LAB_NAMESPACE_FAILED
 */
export async function ensureNodeNamespaces(name: string, node: NodePaths, hosts: string): Promise<void> {
  if (isNamespace(node.mnt) && isNamespace(node.uts)) return;
  for (const folder of [node.folder, node.state, node.run, node.cniConf, node.cniBin]) {
    mkdirSync(folder, { recursive: true, mode: 0o755 });
  }
  const etcHosts = `${node.state}/hosts`;
  writeFileSync(etcHosts, hosts);
  ensureHostFolders();
  for (const file of [node.mnt, node.uts]) {
    if (isNamespace(file)) await shell(`unbind ${file}`, 'umount "$1"', [file]);
    writeFileSync(file, '');
  }
  // The first argument list runs in the new namespaces. /run/weft comes last: it hides the lab's own files.
  const inside = `
    hostname "$1"
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
    [ ! -e /etc/hosts ] || mount --bind "$6" /etc/hosts
    mount --bind "$4" /etc/cni/net.d
    mount --bind "$5" /opt/cni/bin
    mount --bind "$3" /run/weft
    mount --bind "$2" /var/lib/weft`;
  await shell(
    `make the namespaces of ${name}`,
    `net=$1 mnt=$2 uts=$3 inside=$4; shift 4
     exec nsenter --net="$net" unshare --mount="$mnt" --uts="$uts" --propagation slave sh -eu -c "$inside" sh "$@"`,
    [node.netns, node.mnt, node.uts, inside, name, node.state, node.run, node.cniConf, node.cniBin, etcHosts],
  );
}

/** What a node's own folders are mounted over: they have to be on the host too, as the agent of a real node would make them. */
const MOUNT_POINTS = ['/run/weft', '/var/lib/weft', '/etc/cni/net.d', '/opt/cni/bin'];
/** The folders that labs made for that, so that the last one takes them away again. */
const MADE = `${STATE}/.host-folders`;

function ensureHostFolders(): void {
  const wanted = MOUNT_POINTS.flatMap((folder) => parents(folder)).filter((folder) => !existsSync(folder));
  if (wanted.length === 0) return;
  mkdirSync(STATE, { recursive: true });
  writeFileSync(MADE, [...hostFoldersMade(), ...wanted].map((folder) => `${folder}\n`).join(''));
  for (const folder of MOUNT_POINTS) mkdirSync(folder, { recursive: true });
}

function parents(folder: string): string[] {
  return folder === '/' ? [] : [...parents(path.dirname(folder)), folder];
}

function hostFoldersMade(): string[] {
  try {
    return readFileSync(MADE, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

/** After the last lab: the folders that labs made, innermost first, those that are empty. */
export function removeHostFolders(): void {
  const made = hostFoldersMade();
  rmSync(MADE, { force: true });
  for (const folder of [RUN, STATE, ...made.reverse(), '/run/weft', '/var/lib/weft']) {
    try {
      rmdirSync(folder);
    } catch {
      // In use, or gone.
    }
  }
}

/** UTS (with the pod's hostname) and IPC namespaces that all containers of a pod share. Idempotent. */
export async function ensurePodNamespaces(
  hostname: string,
  files: { folder: string; uts: string; ipc: string },
): Promise<void> {
  if (isNamespace(files.uts) && isNamespace(files.ipc)) return;
  await removePodNamespaces(files);
  mkdirSync(files.folder, { recursive: true });
  for (const file of [files.uts, files.ipc]) writeFileSync(file, '');
  await shell('make the namespaces of a pod', 'exec unshare --uts="$1" --ipc="$2" hostname "$3"', [
    files.uts,
    files.ipc,
    hostname,
  ]);
}

export async function removePodNamespaces(files: { folder: string }): Promise<void> {
  await unbindBelow(files.folder);
  rmSync(files.folder, { recursive: true, force: true });
}

/** Unmount the folder's mounts, innermost first, and the folder itself if it is one. */
export async function unbindBelow(folder: string): Promise<void> {
  const found = mountPoints()
    .map((mount) => mount.path)
    .filter((each) => each === folder || each.startsWith(`${folder}/`))
    .reverse();
  if (found.length === 0) return;
  // Lazily: a process that is just dying may still hold it.
  await shell(`unmount ${folder}`, 'umount -l -- "$@"', found);
}

/** Whether a namespace is bound to this file: then it lies on nsfs, whose files are not on the folder's device. */
export function isNamespace(file: string): boolean {
  if (!existsSync(file)) return false;
  return statSync(file).dev === statSync('/proc/self/ns/net').dev;
}
