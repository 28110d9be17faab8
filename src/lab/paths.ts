/**
 * Every name that a lab gives to something on this machine. Whatever is left of a lab after a crash is found by these names,
 * so they depend on nothing but the lab's own.
 */
import path from 'node:path';
import { WeftError } from '../base/errors.ts';

/** The project's own folder: where the launcher, the compiled objects and the sources are. */
export const HOME = path.join(import.meta.dirname, '../..');
export const RUN = '/run/weft/labs';
export const STATE = '/var/lib/weft/labs';
export const NETNS = '/run/netns';

/**
 * In the environment of every process that a lab starts: `<lab>/<role>`, e.g. `default/agent/node-1`. By it a lab finds its
 * processes again.
 */
export const PROCESS_MARK = 'WEFT_LAB_PROCESS';

export interface LabPaths {
  lab: string;
  /** Runtime state: gone after a reboot, if /run is. */
  run: string;
  /** Durable state. */
  state: string;
  /** What exists of the lab, or is about to; written before anything is made. */
  record: string;
  /** Unix socket of the daemon. */
  socket: string;
  /** A private mount: namespace files below it do not spread to other mount namespaces. */
  namespaces: string;
  /** The admin's kubeconfig. */
  kubeconfig: string;
  apiData: string;
  logs: string;
  podRun(uid: string): string;
  podState(uid: string): string;
  /** Handles of the namespaces of a pod that are not its network namespace. */
  podNamespaces(uid: string): { folder: string; uts: string; ipc: string };
  podNetns(uid: string): string;
  netNetns: string;
  outsideNetns: string;
  node(name: string): NodePaths;
  /** What every network namespace of the lab is called, up to its last part. */
  netnsPrefix: string;
}

export interface NodePaths {
  netns: string;
  mnt: string;
  uts: string;
  folder: string;
  /** The node's /var/lib/weft, /run/weft, /etc/cni/net.d, /opt/cni/bin as the host sees them. */
  state: string;
  run: string;
  cniConf: string;
  cniBin: string;
  agentConfig: string;
  kubeconfig: string;
}

/** Lab names have no `-`, so that no lab's names begin like another's. */
export function checkLabName(name: string): string {
  if (!/^[a-z][a-z0-9]{0,15}$/.test(name)) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `${JSON.stringify(name)} is no name for a lab: 1 to 16 letters a–z and digits, a letter first`,
    );
  }
  return name;
}

/** @throws WEFT_BAD_CONFIG */
export function labPaths(lab: string): LabPaths {
  checkLabName(lab);
  const run = `${RUN}/${lab}`;
  const state = `${STATE}/${lab}`;
  const netnsPrefix = `weft-${lab}-`;
  return {
    lab,
    run,
    state,
    record: `${state}/lab.json`,
    socket: `${run}/daemon.sock`,
    namespaces: `${run}/ns`,
    kubeconfig: `${state}/kubeconfig`,
    apiData: `${state}/apiserver`,
    logs: `${state}/logs`,
    podRun: (uid) => `${run}/pods/${uid}`,
    podState: (uid) => `${state}/pods/${uid}`,
    podNamespaces: (uid) => {
      const folder = `${run}/ns/pod-${uid}`;
      return { folder, uts: `${folder}/uts`, ipc: `${folder}/ipc` };
    },
    podNetns: (uid) => `${NETNS}/${netnsPrefix}pod-${shortUid(uid)}`,
    netNetns: `${NETNS}/${netnsPrefix}net`,
    outsideNetns: `${NETNS}/${netnsPrefix}outside`,
    netnsPrefix,
    node: (name) => {
      const own = `${state}/nodes/${name}`;
      const folder = `${run}/ns/${name}`;
      return {
        netns: `${NETNS}/${netnsPrefix}${name}`,
        folder,
        mnt: `${folder}/mnt`,
        uts: `${folder}/uts`,
        state: `${own}/lib`,
        run: `${own}/run`,
        cniConf: `${own}/cni-conf`,
        cniBin: `${own}/cni-bin`,
        agentConfig: `${own}/lib/agent.json`,
        kubeconfig: `${own}/lib/kubeconfig`,
      };
    },
  };
}

/** The first eight hexadecimal digits of a UID: 32 random bits, plenty among the pods of a lab. */
export function shortUid(uid: string): string {
  return uid.replaceAll('-', '').slice(0, 8);
}
