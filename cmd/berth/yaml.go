package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// marshalYAML writes v with the keys, the order and the values of its JSON.
func marshalYAML(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	tokens := json.NewDecoder(bytes.NewReader(text))
	tokens.UseNumber()
	doc, err := yamlNode(tokens)
	if err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("write as YAML: %w", err)
	}
	return b.Bytes(), enc.Close()
}

// yamlNode takes the next value; an object's keys are values like others.
func yamlNode(tokens *json.Decoder) (*yaml.Node, error) {
	token, err := tokens.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case string:
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: t}
		if strings.ContainsAny(t, "\n\t") {
			n.Style = yaml.DoubleQuotedStyle // as a block, some such texts don't come back
		}
		return n, nil
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode}
		if t == '[' {
			n.Kind = yaml.SequenceNode
		}
		for tokens.More() {
			child, err := yamlNode(tokens)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := tokens.Token() // its end
		return n, err
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(token)}, nil // a number or a boolean
}

// unmarshalYAML reads one YAML or JSON document into v by v's JSON keys. A key
// that v doesn't have is an error that names it.
func unmarshalYAML(text []byte, v any) error {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc any
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("it holds more than one document: put each in a file of its own")
	}
	asJSON, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	strict := json.NewDecoder(bytes.NewReader(asJSON))
	strict.DisallowUnknownFields()
	return strict.Decode(v)
}
