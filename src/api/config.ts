/**
 * The one configuration object a node is composed from. `weft agent --config FILE` reads it (YAML or JSON); every field
 * but `nodeName` and `kubeconfig` has a default.
 */
import type { Cidr, Ip } from '../base/ip.ts';

export type FabricBackend = 'auto' | 'vxlan' | 'host-gw';

export interface AgentConfig {
  nodeName: string;
  /** Path of the kubeconfig with which the agent speaks to the API. */
  kubeconfig: string;
  /** All pod CIDRs of the cluster, at most one per family: what is never masqueraded among pods. */
  clusterCIDRs: Cidr[];
  /** This node's underlay addresses, at most one per family. Empty: those of the interface with the default route. */
  nodeIPs: Ip[];
  /** Create and heartbeat the Node object (true without a kubelet; false under one). */
  registerNode: boolean;
  fabric: {
    backend: FabricBackend;
    /** Default 1. */
    vxlanVni: number;
    /** UDP; default 8472. */
    vxlanPort: number;
    /** Pod MTU; 0: the underlay's, less the encapsulation's overhead where any node needs it. */
    mtu: number;
  };
  masquerade: {
    enabled: boolean;
    /** Destinations that pods reach with their own address, besides cluster CIDRs and node addresses. */
    exclude: Cidr[];
  };
  cni: {
    /** Unix socket of the CNI server. Default /run/weft/cni.sock. */
    socket: string;
    /** Where the plugin and its configuration are installed; '' for not at all. */
    binDir: string;
    confDir: string;
    /** Where the shim leaves DELs it could not deliver. */
    spoolDir: string;
    /** Seconds before a released address may be given again. */
    cooldownSeconds: number;
  };
  /** Durable: attachments and allocations. Default /var/lib/weft. */
  stateDir: string;
  /** /healthz, /readyz, /metrics. Port 0: none. */
  metrics: { address: Ip; port: number };
}
