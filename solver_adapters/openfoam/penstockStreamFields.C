/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "volFields.H"

// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

template<class Type>
Foam::direction Foam::functionObjects::penstockStream::components
(
    const fvMesh& mesh,
    const word& name
)
{
    return
    (
        mesh.foundObject<penstockCompat::CellField<Type>>(name)
      ? direction(pTraits<Type>::nComponents)
      : direction(0)
    );
}


Foam::direction Foam::functionObjects::penstockStream::componentsOf
(
    const fvMesh& mesh,
    const word& name
)
{
    // A name belongs to one field, so that at most one term is not 0
    return
        components<scalar>(mesh, name)
      + components<vector>(mesh, name)
      + components<sphericalTensor>(mesh, name)
      + components<symmTensor>(mesh, name)
      + components<tensor>(mesh, name);
}


Foam::string Foam::functionObjects::penstockStream::available
(
    const fvMesh& mesh
)
{
    const objectRegistry& objects = mesh;
    const wordList names(objects.sortedToc());
    string text;

    forAll(names, i)
    {
        const word& name = names[i];
        const bool old = // an old time level
            name.size() > 2 && name.compare(name.size() - 2, 2, "_0") == 0;

        if (!old && componentsOf(mesh, name))
        {
            text += (text.empty() ? "" : " ") + name;
        }
    }

    return "(" + text + ")";
}


template<class Type>
Foam::string Foam::functionObjects::penstockStream::sendField
(
    const label fieldi,
    bool& found
)
{
    typedef penstockCompat::CellField<Type> fieldType;

    const Part& part = parts_[sources_[fieldi].first];
    const word& name = sources_[fieldi].second;

    if (!part.mesh->foundObject<fieldType>(name))
    {
        return string();
    }
    found = true;

    const fieldType& field = part.mesh->lookupObject<fieldType>(name);
    const Field<Type>& values = field.primitiveField();
    const uint64_t n = pTraits<Type>::nComponents;

    static_assert
    (
        sizeof(Type) == pTraits<Type>::nComponents*sizeof(scalar),
        "components lie side by side"
    );

    return errorOf
    (
        penstock_send
        (
            stream_, size_t(fieldi), step_, runTime_.value(), scalarDtype,
            values.cdata(), n*uint64_t(part.firstCell), n*uint64_t(values.size())
        )
    );
}


Foam::string Foam::functionObjects::penstockStream::sendFields()
{
    for (const Part& part : parts_)
    {
        const label nCells = returnReduce(part.mesh->nCells(), penstockCompat::Sum());

        if (nCells != part.nCells)
        {
            return
                "the mesh " + part.mesh->name() + " has " + Foam::name(nCells)
              + " cells, it had " + Foam::name(part.nCells)
              + " when the stream began: a mesh that is refined or whose cells"
                " come and go cannot be streamed";
        }
    }

    forAll(fields_, fieldi)
    {
        bool found = false;
        string problem(sendField<scalar>(fieldi, found));

        if (!found)
        {
            problem = sendField<vector>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<sphericalTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<symmTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<tensor>(fieldi, found);
        }
        if (!found)
        {
            problem =
                "field " + fields_[fieldi] + " existed at the first time step "
                "but is gone now: stream fields that the solver keeps";
        }
        if (!problem.empty())
        {
            return problem;
        }
    }

    ++step_;
    return errorOf(penstock_step_sent(stream_));
}


// ************************************************************************* //
