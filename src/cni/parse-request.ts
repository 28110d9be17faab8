/**
 * Environment and configuration → a request, checked. The specification's section 2 ("Parameters") and section 1
 * ("Configuration format"); conventions (runtimeConfig, args, CNI_ARGS) as CONVENTIONS.md has them.
 */
import { isWeftError } from '../base/errors.ts';
import { canonicalIp, formatMac, type Ip, type Mac, parseMac } from '../base/ip.ts';
import { CNI_CODE, CniError } from './errors.ts';
import {
  field,
  fieldAnyCase,
  intOr,
  isObject,
  type JsonObject,
  listOr,
  objectOr,
  refuse,
  textOr,
  textsOr,
} from './json.ts';
import { decodeDns, decodeResult } from './result.ts';
import {
  type AddRequest,
  type AttachmentRef,
  atLeast,
  type CheckRequest,
  CNI_VERSIONS,
  type CniCommand,
  type CniInvocation,
  type CniVersion,
  type DelRequest,
  type GcRequest,
  type NetworkConfig,
  type PodIdentity,
} from './types.ts';

export type CniRequest =
  | { command: 'ADD'; version: CniVersion; request: AddRequest }
  | { command: 'DEL'; version: CniVersion; request: DelRequest }
  | { command: 'CHECK'; version: CniVersion; request: CheckRequest }
  | { command: 'GC'; version: CniVersion; request: GcRequest }
  | { command: 'STATUS' | 'VERSION'; version: CniVersion };

const COMMANDS: readonly CniCommand[] = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'];
/** The version in which each command appeared, where that is not the first one we speak. */
const SINCE: Partial<Record<CniCommand, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };
/** Container IDs and network names (SPEC, "Parameters" and "Configuration format"). */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** RFC 791 for IPv4, RFC 8200 §5 for IPv6; the families are not known yet, so the stricter one is the datapath's. */
const MIN_MTU = 68;

/** @throws CniError 1, 2, 4, 6, 7 */
export function parseRequest({ env, stdin }: CniInvocation): CniRequest {
  const command = env.CNI_COMMAND as CniCommand;
  if (!COMMANDS.includes(command)) {
    throw new CniError(
      CNI_CODE.invalidEnvironment,
      command ? `CNI_COMMAND ${JSON.stringify(command)} is unknown` : 'CNI_COMMAND is not set',
    );
  }
  const raw = parseJson(stdin);
  const version = versionOf(raw);
  if (command === 'VERSION') return { command, version };
  const since = SINCE[command];
  if (since && !atLeast(version, since)) {
    throw new CniError(
      CNI_CODE.incompatibleVersion,
      `${command} needs cniVersion ${since} or later; the configuration has ${version}`,
    );
  }
  // Clearing up must not fail over what another plugin of the chain said.
  const config = parseConfig(raw, version, command === 'ADD' || command === 'CHECK');
  switch (command) {
    case 'STATUS':
      return { command, version };
    case 'GC':
      return { command, version, request: { network: config.name, valid: validAttachments(raw) } };
    case 'ADD':
      return { command, version, request: parseAdd(env, raw, config) };
    case 'DEL': {
      // prevResult is not needed: what was attached is on record.
      const request = { ...attachmentRef(env), network: config.name, netns: env.CNI_NETNS ?? '' };
      return { command, version, request };
    }
    case 'CHECK': {
      const { prevResult } = config;
      if (!prevResult) throw refuse('prevResult', 'is missing; CHECK needs it');
      const request = { ...attachmentRef(env), config: { ...config, prevResult }, netns: netnsOf(env) };
      return { command, version, request };
    }
  }
}

/** The version to answer an unreadable request in: its own if it can be made out. */
export function versionToAnswer(stdin: string): string | undefined {
  try {
    const value: unknown = JSON.parse(stdin);
    const text = isObject(value) ? field(value, 'cniVersion') : undefined;
    return typeof text === 'string' && /^[0-9]+(\.[0-9]+){2}$/.test(text) && text.length <= 16
      ? text
      : undefined;
  } catch {
    return undefined;
  }
}

/** The network that a configuration names, if that much of it can be read. */
export function networkNameOf(stdin: string): string | undefined {
  try {
    const value: unknown = JSON.parse(stdin);
    const name = isObject(value) ? field(value, 'name') : undefined;
    return typeof name === 'string' && NAME.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

function parseJson(stdin: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(stdin);
  } catch (error) {
    throw new CniError(
      CNI_CODE.undecodable,
      `the network configuration is not JSON: ${error instanceof Error ? error.message : error}`,
    );
  }
  if (!isObject(value))
    throw new CniError(CNI_CODE.undecodable, 'the network configuration is no JSON object');
  return value;
}

function versionOf(raw: JsonObject): CniVersion {
  // Absent means 0.1.0 (SPEC until 0.2.0), which is too old.
  const version = textOr(field(raw, 'cniVersion'), 'cniVersion') || '0.1.0';
  if (!(CNI_VERSIONS as readonly string[]).includes(version)) {
    throw new CniError(
      CNI_CODE.incompatibleVersion,
      `cniVersion ${version} is not supported; supported are ${CNI_VERSIONS.join(', ')}`,
    );
  }
  return version as CniVersion;
}

function parseConfig(raw: JsonObject, version: CniVersion, withPrevious: boolean): NetworkConfig {
  const name = textOr(field(raw, 'name'), 'name');
  if (name === undefined || !NAME.test(name)) {
    throw refuse('name', name === undefined ? 'is missing' : `${JSON.stringify(name)} is not a network name`);
  }
  const ipam = objectOr(field(raw, 'ipam'), 'ipam');
  const ipamType = ipam && textOr(field(ipam, 'type'), 'ipam.type');
  if (ipamType) {
    throw new CniError(
      CNI_CODE.unsupportedField,
      `ipam.type=${JSON.stringify(ipamType)} is not supported: Weft allocates addresses itself`,
    );
  }
  const config: NetworkConfig = { version, name, dns: decodeDns(field(raw, 'dns'), 'dns') };
  const mtu = intOr(field(raw, 'mtu'), 'mtu', 0, 65_535);
  if (mtu) {
    if (mtu < MIN_MTU) throw refuse('mtu', `must be 0 (the node's) or at least ${MIN_MTU}`);
    config.mtu = mtu;
  }
  const prevResult = withPrevious ? decodeResult(field(raw, 'prevResult')) : undefined;
  if (prevResult) config.prevResult = prevResult;
  return config;
}

/** @throws CniError 4 */
export function attachmentRef(env: CniInvocation['env']): AttachmentRef {
  const containerId = env.CNI_CONTAINERID ?? '';
  const ifname = env.CNI_IFNAME ?? '';
  if (!NAME.test(containerId) || containerId.length > 1024)
    throw badEnvironment('CNI_CONTAINERID', containerId);
  // What the kernel takes as a name (dev_valid_name) without the separators that CNI excludes; it takes % for a template
  // (dev_alloc_name), and U+FFFD stands for bytes that were no text.
  if (
    !/^[^\s/:%\0\ufffd]{1,15}$/.test(ifname) ||
    Buffer.byteLength(ifname) > 15 ||
    ifname === '.' ||
    ifname === '..'
  ) {
    throw badEnvironment('CNI_IFNAME', ifname);
  }
  return { containerId, ifname };
}

function netnsOf(env: CniInvocation['env']): string {
  const netns = env.CNI_NETNS ?? '';
  if (!netns.startsWith('/') || netns.length > 4096) throw badEnvironment('CNI_NETNS', netns);
  return netns;
}

function badEnvironment(name: string, value: string): CniError {
  return new CniError(
    CNI_CODE.invalidEnvironment,
    value === '' ? `${name} is not set` : `${name} ${JSON.stringify(value)} is not valid`,
  );
}

function parseAdd(env: CniInvocation['env'], raw: JsonObject, config: NetworkConfig): AddRequest {
  const netns = netnsOf(env);
  const ref = attachmentRef(env);
  const args = parseArgs(env.CNI_ARGS ?? '');
  const runtime = objectOr(field(raw, 'runtimeConfig'), 'runtimeConfig') ?? {};
  const argsField = objectOr(field(raw, 'args'), 'args') ?? {};
  const cniArgs = objectOr(fieldAnyCase(argsField, 'cni'), 'args.cni') ?? {};
  const request: AddRequest = { ...ref, config, netns, ips: [] };

  // The more particular source wins: capability arguments, then `args`, then CNI_ARGS (deprecated).
  const ips =
    nonEmpty(textsOr(fieldAnyCase(runtime, 'ips'), 'runtimeConfig.ips')) ??
    nonEmpty(textsOr(fieldAnyCase(cniArgs, 'ips'), 'args.cni.ips')) ??
    args.get('ip')?.split(',').filter(Boolean) ??
    [];
  request.ips = ips.map(requestedIp);
  const mac =
    textOr(fieldAnyCase(runtime, 'mac'), 'runtimeConfig.mac') ||
    textOr(fieldAnyCase(cniArgs, 'mac'), 'args.cni.mac') ||
    args.get('mac');
  if (mac) request.mac = requestedMac(mac);
  const pod = podOf(args);
  if (pod) request.pod = pod;
  return request;
}

function nonEmpty(list: string[] | undefined): string[] | undefined {
  return list && list.length > 0 ? list : undefined;
}

/** `K=V;K=V`; keys in any case. Unknown ones are for others (IgnoreUnknown is what every runtime sets). */
function parseArgs(text: string): Map<string, string> {
  const args = new Map<string, string>();
  for (const pair of text.split(';')) {
    if (pair === '') continue;
    const at = pair.indexOf('=');
    if (at <= 0) {
      throw new CniError(CNI_CODE.invalidEnvironment, `CNI_ARGS: ${JSON.stringify(pair)} is not KEY=VALUE`);
    }
    args.set(pair.slice(0, at).toLowerCase(), pair.slice(at + 1));
  }
  return args;
}

function podOf(args: Map<string, string>): PodIdentity | undefined {
  const name = args.get('k8s_pod_name');
  if (!name) return undefined;
  const uid = args.get('k8s_pod_uid');
  return { namespace: args.get('k8s_pod_namespace') ?? '', name, ...(uid && { uid }) };
}

/** A prefix length is the runtime's idea of the subnet; the address is what it asks for. */
function requestedIp(text: string): Ip {
  return readAddress('requested address', () => canonicalIp(text.replace(/\/\d{1,3}$/, '')));
}

function requestedMac(text: string): Mac {
  const bytes = readAddress('requested MAC', () => parseMac(text));
  const mac = formatMac(bytes);
  if (bytes[0]! & 1 || mac === '00:00:00:00:00:00') {
    throw refuse('requested MAC', `${mac} is no unicast address`);
  }
  return mac;
}

function readAddress<T>(key: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (isWeftError(error, 'WEFT_BAD_ADDRESS')) throw refuse(key, error.message);
    throw error;
  }
}

function validAttachments(raw: JsonObject): AttachmentRef[] {
  // 1.1.0-rc called it `cni.dev/attachments`.
  const key =
    field(raw, 'cni.dev/valid-attachments') !== undefined
      ? 'cni.dev/valid-attachments'
      : 'cni.dev/attachments';
  const list = listOr(field(raw, key), key);
  if (!list) throw refuse('cni.dev/valid-attachments', 'is missing; GC needs it');
  return list.map((value, i) => {
    const entry = objectOr(value ?? undefined, `${key}[${i}]`) ?? {};
    const containerId = textOr(field(entry, 'containerID'), `${key}[${i}].containerID`);
    const ifname = textOr(field(entry, 'ifname'), `${key}[${i}].ifname`);
    // An entry that cannot be read must not become one that is removed.
    if (!containerId || !ifname) throw refuse(`${key}[${i}]`, 'needs containerID and ifname');
    return { containerId, ifname };
  });
}
