package providers

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-cty/cty"
	"github.com/hashicorp/go-cty/cty/gocty"
	"github.com/hashicorp/go-cty/cty/msgpack"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-sdk/v2/helper/schema"
)

// provider is a configured provider and the protocol's face of it.
type provider struct {
	*schema.GRPCProviderServer
	of *schema.Provider
}

// resource is one that Terraform keeps the state of.
type resource struct {
	of      provider
	kind    string
	state   cty.Value // of no resource: cty.NilVal
	private []byte
}

// value makes the value of a type out of what a configuration would say. What it leaves
// out is null; a block that it leaves out is empty.
func value(t *testing.T, ty cty.Type, from any, blocks map[string]bool) cty.Value {
	t.Helper()
	switch from := from.(type) {
	case nil:
		return cty.NullVal(ty)
	case map[string]any:
		if ty.IsMapType() {
			all := map[string]cty.Value{}
			for key, one := range from {
				all[key] = value(t, ty.ElementType(), one, nil)
			}
			return cty.MapVal(all)
		}
		all := map[string]cty.Value{}
		for name, ty := range ty.AttributeTypes() {
			switch {
			case from[name] == nil && blocks[name] && ty.IsListType():
				all[name] = cty.ListValEmpty(ty.ElementType())
			case from[name] == nil && blocks[name] && ty.IsSetType():
				all[name] = cty.SetValEmpty(ty.ElementType())
			default:
				all[name] = value(t, ty, from[name], nil)
			}
		}
		for name := range from {
			if !ty.HasAttribute(name) {
				t.Fatalf("there is no argument %s", name)
			}
		}
		return cty.ObjectVal(all)
	case []any:
		var all []cty.Value
		for _, one := range from {
			all = append(all, value(t, ty.ElementType(), one, nil))
		}
		if ty.IsSetType() {
			return cty.SetVal(all)
		}
		return cty.ListVal(all)
	default:
		v, err := gocty.ToCtyValue(from, ty)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// configuration is the block of a configuration, and its type.
func configuration(t *testing.T, of *schema.Resource, from map[string]any) (cty.Value, cty.Type) {
	t.Helper()
	block := of.CoreConfigSchema()
	blocks := map[string]bool{}
	for name := range block.BlockTypes {
		blocks[name] = true
	}
	return value(t, block.ImpliedType(), from, blocks), block.ImpliedType()
}

// proposed is what Terraform proposes before it asks for a plan: what is configured, and
// of what the provider fills in by itself what it was before.
func proposed(of *schema.Resource, config, prior cty.Value) cty.Value {
	if prior.IsNull() {
		return config
	}
	all := config.AsValueMap()
	for name, attribute := range of.CoreConfigSchema().Attributes {
		if attribute.Computed && all[name].IsNull() {
			all[name] = prior.GetAttr(name)
		}
	}
	return cty.ObjectVal(all)
}

func encoded(t *testing.T, v cty.Value, ty cty.Type) *tfprotov5.DynamicValue {
	t.Helper()
	raw, err := msgpack.Marshal(v, ty)
	if err != nil {
		t.Fatal(err)
	}
	return &tfprotov5.DynamicValue{MsgPack: raw}
}

func decoded(t *testing.T, v *tfprotov5.DynamicValue, ty cty.Type) cty.Value {
	t.Helper()
	if v == nil {
		t.Fatal("the provider answers no value")
	}
	out, err := msgpack.Unmarshal(v.MsgPack, ty)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// failed is what the provider says went wrong, "" if nothing did.
func failed(err error, all []*tfprotov5.Diagnostic) string {
	if err != nil {
		return err.Error()
	}
	for _, one := range all {
		if one.Severity == tfprotov5.DiagnosticSeverityError {
			return one.Summary + " " + one.Detail
		}
	}
	return ""
}

func must(t *testing.T, what string, err error, all []*tfprotov5.Diagnostic) {
	t.Helper()
	if bad := failed(err, all); bad != "" {
		t.Fatalf("%s: %s", what, bad)
	}
}

func (r *resource) schema() *schema.Resource { return r.of.of.ResourcesMap[r.kind] }

// plan asks what would be changed, and whether the resource would be made anew.
func (r *resource) plan(t *testing.T, config cty.Value, ty cty.Type) (cty.Value, *tfprotov5.PlanResourceChangeResponse) {
	t.Helper()
	prior := r.state
	if prior == cty.NilVal {
		prior = cty.NullVal(ty)
	}
	p, err := r.of.PlanResourceChange(t.Context(), &tfprotov5.PlanResourceChangeRequest{
		TypeName: r.kind, PriorState: encoded(t, prior, ty), PriorPrivate: r.private, Config: encoded(t, config, ty),
		ProposedNewState: encoded(t, proposed(r.schema(), config, prior), ty),
	})
	must(t, r.kind+": plan", err, p.Diagnostics)
	return decoded(t, p.PlannedState, ty), p
}

// apply validates, plans and applies a configuration, reads what became of it, and wants
// a second plan to be empty. It says why the provider did not.
func (r *resource) apply(t *testing.T, from map[string]any) string {
	t.Helper()
	config, ty := configuration(t, r.schema(), from)
	v, err := r.of.ValidateResourceTypeConfig(t.Context(), &tfprotov5.ValidateResourceTypeConfigRequest{TypeName: r.kind, Config: encoded(t, config, ty)})
	must(t, r.kind+": validate", err, v.Diagnostics)
	planned, p := r.plan(t, config, ty)
	prior := r.state
	if prior == cty.NilVal {
		prior = cty.NullVal(ty)
	} else if len(p.RequiresReplace) > 0 {
		t.Fatalf("%s would be made anew for %v", r.kind, p.RequiresReplace)
	}
	a, err := r.of.ApplyResourceChange(t.Context(), &tfprotov5.ApplyResourceChangeRequest{
		TypeName: r.kind, PriorState: encoded(t, prior, ty), PlannedState: encoded(t, planned, ty), Config: encoded(t, config, ty), PlannedPrivate: p.PlannedPrivate,
	})
	if bad := failed(err, a.Diagnostics); bad != "" {
		return bad
	}
	r.state, r.private = decoded(t, a.NewState, ty), a.Private
	r.read(t)
	if r.state.IsNull() {
		t.Fatalf("%s is not there after it was applied", r.kind)
	}
	if again, p := r.plan(t, config, ty); len(p.RequiresReplace) > 0 || !again.RawEquals(r.state) {
		t.Errorf("%s: a second plan changes %v", r.kind, differing(again, r.state))
	}
	return ""
}

// applied is apply, which must do it.
func (r *resource) applied(t *testing.T, from map[string]any) {
	t.Helper()
	if bad := r.apply(t, from); bad != "" {
		t.Fatalf("%s: apply: %s", r.kind, bad)
	}
}

func (r *resource) read(t *testing.T) {
	t.Helper()
	ty := r.schema().CoreConfigSchema().ImpliedType()
	a, err := r.of.ReadResource(t.Context(), &tfprotov5.ReadResourceRequest{TypeName: r.kind, CurrentState: encoded(t, r.state, ty), Private: r.private})
	must(t, r.kind+": read", err, a.Diagnostics)
	r.state, r.private = decoded(t, a.NewState, ty), a.Private
}

// imports imports the resource by its id, as "terraform import" does, and wants the state
// that was there before, but for what no answer of the service tells.
func (r *resource) imports(t *testing.T, untold ...string) {
	t.Helper()
	ty := r.schema().CoreConfigSchema().ImpliedType()
	a, err := r.of.ImportResourceState(t.Context(), &tfprotov5.ImportResourceStateRequest{TypeName: r.kind, ID: r.attribute("id")})
	must(t, r.kind+": import", err, a.Diagnostics)
	if len(a.ImportedResources) != 1 {
		t.Fatalf("%s: imported %d resources", r.kind, len(a.ImportedResources))
	}
	imported := &resource{of: r.of, kind: r.kind, state: decoded(t, a.ImportedResources[0].State, ty), private: a.ImportedResources[0].Private}
	imported.read(t)
	if imported.state.IsNull() {
		t.Fatalf("%s: what was imported is not there", r.kind)
	}
	for _, name := range differing(r.state, imported.state) {
		if !slices.Contains(untold, name) {
			t.Errorf("%s: %s is %q after the import, %q before", r.kind, name, imported.attribute(name), r.attribute(name))
		}
	}
}

func (r *resource) destroy(t *testing.T) {
	t.Helper()
	ty := r.schema().CoreConfigSchema().ImpliedType()
	a, err := r.of.ApplyResourceChange(t.Context(), &tfprotov5.ApplyResourceChangeRequest{
		TypeName: r.kind, PriorState: encoded(t, r.state, ty), PlannedState: encoded(t, cty.NullVal(ty), ty), Config: encoded(t, cty.NullVal(ty), ty), PlannedPrivate: r.private,
	})
	must(t, r.kind+": destroy", err, a.Diagnostics)
	r.state = cty.NilVal
}

// gone: the resource was removed beside Terraform, which sees it at its next read.
func (r *resource) gone(t *testing.T) {
	t.Helper()
	if r.read(t); !r.state.IsNull() {
		t.Errorf("%s is there after it was removed", r.kind)
	}
}

// differing names the attributes that two states have not in common.
func differing(a, b cty.Value) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(a.AsValueMap())) {
		if !a.GetAttr(name).RawEquals(b.GetAttr(name)) {
			names = append(names, name)
		}
	}
	return names
}

// attribute is an attribute of the state, by its path, as text: "members.0.status".
func (r *resource) attribute(path string) string { return attribute(r.state, path) }

func attribute(v cty.Value, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	switch {
	case v.IsNull() || !v.IsKnown():
		return ""
	case name == "#":
		return v.Length().GoString()[len("cty.NumberIntVal(") : len(v.Length().GoString())-1]
	case v.Type().IsObjectType():
		if !v.Type().HasAttribute(name) {
			return "no such attribute"
		}
		v = v.GetAttr(name)
	case v.Type().IsMapType():
		v = v.AsValueMap()[name]
	case name == "0":
		all := v.AsValueSlice()
		if len(all) == 0 {
			return ""
		}
		v = all[0]
	}
	if deeper {
		return attribute(v, rest)
	}
	switch {
	case v == cty.NilVal || v.IsNull():
		return ""
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Number:
		return v.AsBigFloat().Text('f', -1)
	case v.Type() == cty.Bool && v.True():
		return "true"
	case v.Type() == cty.Bool:
		return "false"
	}
	return v.GoString()
}

// want compares attributes of a state.
func want(t *testing.T, state cty.Value, attributes map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(attributes)) {
		if got := attribute(state, path); got != attributes[path] {
			t.Errorf("%s is %q, want %q", path, got, attributes[path])
		}
	}
}

// data reads a data source.
func (p provider) data(t *testing.T, kind string, from map[string]any) (cty.Value, string) {
	t.Helper()
	config, ty := configuration(t, p.of.DataSourcesMap[kind], from)
	a, err := p.ReadDataSource(t.Context(), &tfprotov5.ReadDataSourceRequest{TypeName: kind, Config: encoded(t, config, ty)})
	if bad := failed(err, a.Diagnostics); bad != "" {
		return cty.NilVal, bad
	}
	return decoded(t, a.State, ty), ""
}

// found is data, which must be there.
func (p provider) found(t *testing.T, kind string, from map[string]any) cty.Value {
	t.Helper()
	v, bad := p.data(t, kind, from)
	if bad != "" {
		t.Fatalf("%s: %s", kind, bad)
	}
	return v
}
