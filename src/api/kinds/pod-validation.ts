/** Rules of a pod's spec that its schema cannot say. Source: kubernetes/pkg/apis/core/validation. */
import { isIP } from 'node:net';
import { duplicate, type FieldProblem, forbidden, invalid, required } from '../decode.ts';
import { labelNameProblem, subdomainNameProblem, validateLabels } from '../names.ts';
import { quantityValue } from '../quantity.ts';
import type { Container, Pod, Probe } from '../types.ts';

/** The fields beyond those that the rest of Weft reads. */
export interface FullContainer extends Container {
  imagePullPolicy?: string;
  resources?: { limits?: Record<string, string>; requests?: Record<string, string> };
  volumeMounts?: Array<{ name: string; mountPath: string }>;
  volumeDevices?: Array<{ name: string; devicePath: string }>;
}
export interface FullPodSpec extends Omit<Pod['spec'], 'containers' | 'initContainers'> {
  containers: FullContainer[];
  initContainers?: FullContainer[];
  ephemeralContainers?: FullContainer[];
  volumes?: Array<{ name: string } & Record<string, unknown>>;
  schedulerName?: string;
  serviceAccount?: string;
  priority?: number;
  preemptionPolicy?: string;
  hostAliases?: Array<{ ip: string }>;
  dnsConfig?: { nameservers?: string[] };
}

const ENV_NAME = /^[^=\p{Cc}]+$/u;
const PORT_NAME = /^(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-))*[a-z0-9]$|^[a-z]$/;

export function validatePodSpec(spec: FullPodSpec | undefined): FieldProblem[] {
  if (!spec) return [required('spec')];
  const problems: FieldProblem[] = [];
  const volumes = new Set<string>();
  for (const [i, volume] of (spec.volumes ?? []).entries()) {
    const at = `spec.volumes[${i}]`;
    nameOf(volume.name, `${at}.name`, labelNameProblem, problems);
    if (volumes.has(volume.name)) problems.push(duplicate(`${at}.name`, volume.name));
    volumes.add(volume.name);
    const sources = Object.keys(volume).filter((key) => key !== 'name');
    if (sources.length === 0) problems.push(required(at, 'must specify a volume type'));
    for (const extra of sources.slice(1))
      problems.push(forbidden(`${at}.${extra}`, 'may not specify more than 1 volume type'));
  }
  if (!spec.containers?.length) problems.push(required('spec.containers'));
  const names = new Set<string>();
  for (const field of ['initContainers', 'containers', 'ephemeralContainers'] as const)
    for (const [i, container] of (spec[field] ?? []).entries()) {
      const at = `spec.${field}[${i}]`;
      if (container.name && names.has(container.name)) problems.push(duplicate(`${at}.name`, container.name));
      names.add(container.name);
      validateContainer(container, at, volumes, spec.hostNetwork ?? false, problems);
    }
  if (spec.nodeName) nameOf(spec.nodeName, 'spec.nodeName', subdomainNameProblem, problems);
  if (spec.hostname) nameOf(spec.hostname, 'spec.hostname', labelNameProblem, problems);
  if (spec.subdomain) nameOf(spec.subdomain, 'spec.subdomain', labelNameProblem, problems);
  problems.push(...validateLabels(spec.nodeSelector, 'spec.nodeSelector'));
  for (const [i, alias] of (spec.hostAliases ?? []).entries())
    if (!isIP(alias.ip))
      problems.push(invalid(`spec.hostAliases[${i}].ip`, alias.ip, 'must be a valid IP address'));
  for (const [i, server] of (spec.dnsConfig?.nameservers ?? []).entries())
    if (!isIP(server))
      problems.push(invalid(`spec.dnsConfig.nameservers[${i}]`, server, 'must be a valid IP address'));
  if (spec.dnsPolicy === 'None' && !spec.dnsConfig?.nameservers?.length)
    problems.push(
      required(
        'spec.dnsConfig.nameservers',
        'must provide at least one DNS nameserver when `dnsPolicy` is None',
      ),
    );
  for (const [i, t] of (spec.tolerations ?? []).entries()) {
    const at = `spec.tolerations[${i}]`;
    if (!t.key && t.operator !== 'Exists')
      problems.push(
        invalid(
          `${at}.operator`,
          t.operator ?? '',
          'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        ),
      );
    if (t.operator === 'Exists' && t.value)
      problems.push(invalid(`${at}.operator`, t.operator, "value must be empty when `operator` is 'Exists'"));
  }
  return problems;
}

function nameOf(
  name: string,
  field: string,
  problemOf: (name: string) => string | undefined,
  problems: FieldProblem[],
): void {
  const problem = name === '' ? undefined : problemOf(name);
  if (problem) problems.push(invalid(field, name, problem));
}

function validateContainer(
  c: FullContainer,
  at: string,
  volumes: ReadonlySet<string>,
  hostNetwork: boolean,
  problems: FieldProblem[],
): void {
  nameOf(c.name ?? '', `${at}.name`, labelNameProblem, problems);
  if (!c.image) problems.push(required(`${at}.image`));
  else if (c.image !== c.image.trim())
    problems.push(invalid(`${at}.image`, c.image, 'must not have leading or trailing whitespace'));
  for (const [i, variable] of (c.env ?? []).entries()) {
    if (variable.name && !ENV_NAME.test(variable.name))
      problems.push(
        invalid(
          `${at}.env[${i}].name`,
          variable.name,
          "a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
      );
    if (variable.value && variable.valueFrom)
      problems.push(
        invalid(`${at}.env[${i}].valueFrom`, '', 'may not be specified when `value` is not empty'),
      );
  }
  validatePorts(c, at, hostNetwork, problems);
  const mounts = new Set<string>();
  for (const [i, mount] of (c.volumeMounts ?? []).entries()) {
    if (mount.name && !volumes.has(mount.name))
      problems.push({
        field: `${at}.volumeMounts[${i}].name`,
        reason: 'FieldValueInvalid',
        message: `Not found: "${mount.name}"`,
      });
    if (mounts.has(mount.mountPath))
      problems.push(invalid(`${at}.volumeMounts[${i}].mountPath`, mount.mountPath, 'must be unique'));
    mounts.add(mount.mountPath);
  }
  for (const [name, amount] of Object.entries(c.resources?.requests ?? {})) {
    const limit = c.resources?.limits?.[name];
    if (limit !== undefined && quantityValue(amount) > quantityValue(limit))
      problems.push(
        invalid(
          `${at}.resources.requests`,
          amount,
          `must be less than or equal to ${name} limit of ${limit}`,
        ),
      );
  }
  for (const kind of ['livenessProbe', 'readinessProbe', 'startupProbe'] as const)
    if (c[kind]) validateProbe(c[kind], `${at}.${kind}`, kind !== 'readinessProbe', problems);
}

function validatePorts(c: FullContainer, at: string, hostNetwork: boolean, problems: FieldProblem[]): void {
  const names = new Set<string>();
  const hostPorts = new Set<string>();
  for (const [i, p] of (c.ports ?? []).entries()) {
    const here = `${at}.ports[${i}]`;
    if (p.name) {
      if (!PORT_NAME.test(p.name))
        problems.push(
          invalid(
            `${here}.name`,
            p.name,
            'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), and at least one letter (a-z)',
          ),
        );
      if (names.has(p.name)) problems.push(duplicate(`${here}.name`, p.name));
      names.add(p.name);
    }
    if (p.hostIP && !isIP(p.hostIP))
      problems.push(invalid(`${here}.hostIP`, p.hostIP, 'must be a valid IP address'));
    if (!p.hostPort) continue;
    if (hostNetwork && p.hostPort !== p.containerPort)
      problems.push(
        invalid(`${here}.containerPort`, p.containerPort, 'must match `hostPort` when `hostNetwork` is true'),
      );
    const key = `${p.hostIP ?? ''}/${p.protocol}/${p.hostPort}`;
    if (hostPorts.has(key)) problems.push(duplicate(`${here}.hostPort`, key));
    hostPorts.add(key);
  }
}

function validateProbe(probe: Probe, at: string, endsContainer: boolean, problems: FieldProblem[]): void {
  const handlers = (['exec', 'httpGet', 'tcpSocket', 'grpc'] as const).filter((h) => probe[h]);
  if (handlers.length === 0) problems.push(required(at, 'must specify a handler type'));
  for (const extra of handlers.slice(1))
    problems.push(forbidden(`${at}.${extra}`, 'may not specify more than 1 handler type'));
  if (probe.exec && !probe.exec.command?.length) problems.push(required(`${at}.exec.command`));
  if (endsContainer && (probe.successThreshold ?? 1) !== 1)
    problems.push(invalid(`${at}.successThreshold`, probe.successThreshold, 'must be 1'));
  const port = probe.httpGet?.port ?? probe.tcpSocket?.port;
  if (typeof port === 'number' && (port < 1 || port > 65535))
    problems.push(invalid(`${at}.port`, port, 'must be between 1 and 65535, inclusive'));
}
