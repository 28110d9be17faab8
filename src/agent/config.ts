/**
 * From a file to the one configuration object of a node: defaults filled in, every field checked, unknown fields refused
 * (a misspelt option must not silently be the default).
 */
import { readFileSync } from 'node:fs';
import type { AgentConfig } from '../api/config.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { canonicalCidr, canonicalIp, familyOf } from '../base/ip.ts';

const DEFAULTS: Omit<AgentConfig, 'nodeName' | 'kubeconfig'> = {
  clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/48'],
  nodeIPs: [],
  registerNode: true,
  fabric: { backend: 'auto', vxlanVni: 1, vxlanPort: 8472, mtu: 0 },
  masquerade: { enabled: true, exclude: [] },
  cni: {
    socket: '/run/weft/cni.sock',
    binDir: '/opt/cni/bin',
    confDir: '/etc/cni/net.d',
    spoolDir: '/var/lib/weft/cni-spool',
    cooldownSeconds: 30,
  },
  stateDir: '/var/lib/weft',
  metrics: { address: '127.0.0.1', port: 9464 },
};

/** @throws WEFT_BAD_CONFIG naming the file and the field */
export async function loadAgentConfig(file: string): Promise<AgentConfig> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new WeftError('WEFT_BAD_CONFIG', `cannot read the configuration ${file}: ${messageOf(error)}`, {
      cause: error,
    });
  }
  let value: unknown;
  try {
    // The YAML library costs 5 MB: an agent whose configuration is JSON does without.
    value = text.trimStart().startsWith('{') ? JSON.parse(text) : (await import('yaml')).parse(text);
  } catch (error) {
    throw new WeftError('WEFT_BAD_CONFIG', `${file} is neither YAML nor JSON: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return parseAgentConfig(value, file);
}

/** @throws WEFT_BAD_CONFIG naming the field */
export function parseAgentConfig(value: unknown, where = 'configuration'): AgentConfig {
  const read = new Reader(where);
  const top = read.object(value, '', ['nodeName', 'kubeconfig', ...Object.keys(DEFAULTS)]);
  const fabric = read.object(top.fabric ?? {}, 'fabric', Object.keys(DEFAULTS.fabric));
  const masquerade = read.object(top.masquerade ?? {}, 'masquerade', Object.keys(DEFAULTS.masquerade));
  const cni = read.object(top.cni ?? {}, 'cni', Object.keys(DEFAULTS.cni));
  const metrics = read.object(top.metrics ?? {}, 'metrics', Object.keys(DEFAULTS.metrics));
  const d = DEFAULTS;
  const config: AgentConfig = {
    nodeName: read.nodeName(top.nodeName),
    kubeconfig: read.text(top.kubeconfig, 'kubeconfig'),
    clusterCIDRs: read.onePerFamily(
      read.cidrs(top.clusterCIDRs ?? d.clusterCIDRs, 'clusterCIDRs'),
      'clusterCIDRs',
    ),
    nodeIPs: read.onePerFamily(read.ips(top.nodeIPs ?? d.nodeIPs, 'nodeIPs'), 'nodeIPs'),
    registerNode: read.flag(top.registerNode ?? d.registerNode, 'registerNode'),
    fabric: {
      backend: read.oneOf(fabric.backend ?? d.fabric.backend, 'fabric.backend', ['auto', 'vxlan', 'host-gw']),
      vxlanVni: read.int(fabric.vxlanVni ?? d.fabric.vxlanVni, 'fabric.vxlanVni', 0, 0xff_ff_ff),
      vxlanPort: read.int(fabric.vxlanPort ?? d.fabric.vxlanPort, 'fabric.vxlanPort', 1, 65_535),
      mtu: read.mtu(fabric.mtu ?? d.fabric.mtu, 'fabric.mtu'),
    },
    masquerade: {
      enabled: read.flag(masquerade.enabled ?? d.masquerade.enabled, 'masquerade.enabled'),
      exclude: read.cidrs(masquerade.exclude ?? d.masquerade.exclude, 'masquerade.exclude'),
    },
    cni: {
      socket: read.text(cni.socket ?? d.cni.socket, 'cni.socket'),
      binDir: read.text(cni.binDir ?? d.cni.binDir, 'cni.binDir', true),
      confDir: read.text(cni.confDir ?? d.cni.confDir, 'cni.confDir', true),
      spoolDir: read.text(cni.spoolDir ?? d.cni.spoolDir, 'cni.spoolDir'),
      cooldownSeconds: read.int(
        cni.cooldownSeconds ?? d.cni.cooldownSeconds,
        'cni.cooldownSeconds',
        0,
        86_400,
      ),
    },
    stateDir: read.text(top.stateDir ?? d.stateDir, 'stateDir'),
    metrics: {
      address: read.ips([metrics.address ?? d.metrics.address], 'metrics.address')[0]!,
      port: read.int(metrics.port ?? d.metrics.port, 'metrics.port', 0, 65_535),
    },
  };
  if (config.clusterCIDRs.length === 0) throw read.wrong('clusterCIDRs', 'names no CIDR', top.clusterCIDRs);
  return config;
}

/** Reads fields, and on the first wrong one throws an error that names it. */
class Reader {
  readonly #where: string;

  constructor(where: string) {
    this.#where = where;
  }

  wrong(field: string, what: string, value: unknown): WeftError {
    return new WeftError('WEFT_BAD_CONFIG', `${this.#where}: ${field || 'top level'} ${what}`, {
      details: { field, value: value === undefined ? null : value },
    });
  }

  object(value: unknown, field: string, known: string[]): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.wrong(field, 'must be an object', value);
    }
    for (const key of Object.keys(value)) {
      if (!known.includes(key)) {
        throw this.wrong(field ? `${field}.${key}` : key, `is unknown; known are ${known.join(', ')}`, value);
      }
    }
    return value as Record<string, unknown>;
  }

  text(value: unknown, field: string, emptyAllowed = false): string {
    if (typeof value !== 'string' || (value === '' && !emptyAllowed))
      throw this.wrong(field, 'must be a text', value);
    return value;
  }

  /** Node names are DNS-1123 subdomains (Kubernetes, object names). */
  nodeName(value: unknown): string {
    const name = this.text(value, 'nodeName');
    if (name.length > 253 || !/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)) {
      throw this.wrong('nodeName', 'must be a DNS-1123 subdomain', value);
    }
    return name;
  }

  flag(value: unknown, field: string): boolean {
    if (typeof value !== 'boolean') throw this.wrong(field, 'must be true or false', value);
    return value;
  }

  int(value: unknown, field: string, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw this.wrong(field, `must be a whole number from ${min} to ${max}`, value);
    }
    return value;
  }

  /** 0 for automatic; else at least IPv6's minimum (RFC 8200 §5). */
  mtu(value: unknown, field: string): number {
    const mtu = this.int(value, field, 0, 65_535);
    if (mtu !== 0 && mtu < 1280) throw this.wrong(field, 'must be 0 or at least 1280', value);
    return mtu;
  }

  oneOf<T extends string>(value: unknown, field: string, choices: readonly T[]): T {
    if (!choices.includes(value as T)) throw this.wrong(field, `must be one of ${choices.join(', ')}`, value);
    return value as T;
  }

  #texts(value: unknown, field: string): string[] {
    if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
      throw this.wrong(field, 'must be a list of texts', value);
    }
    return value;
  }

  cidrs(value: unknown, field: string): string[] {
    return this.#texts(value, field).map((text) => this.#address(text, field, canonicalCidr));
  }

  ips(value: unknown, field: string): string[] {
    return this.#texts(value, field).map((text) => this.#address(text, field, canonicalIp));
  }

  #address(text: string, field: string, canonical: (text: string) => string): string {
    try {
      return canonical(text);
    } catch (error) {
      throw this.wrong(field, messageOf(error), text);
    }
  }

  onePerFamily(values: string[], field: string): string[] {
    if (new Set(values.map(familyOf)).size !== values.length) {
      throw this.wrong(field, 'may name at most one of each family', values);
    }
    return values;
  }
}
